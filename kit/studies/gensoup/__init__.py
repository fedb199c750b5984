"""Gen-Soup, a genetic search that averages weights: the thesis, chapter 5."""
