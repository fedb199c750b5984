"""Gen-CNN, a genetic search of hyper-parameters: the thesis, chapter 3."""
