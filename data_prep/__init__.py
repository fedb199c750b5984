"""Getting real data sets onto the disk: ``python -m data_prep --list``, then ``python -m data_prep
<name> --to DIR [--archive FILE]``.

Never imported by ``kit``. What is known about each set is data: ``kit/datasets.yml`` (counts,
versions, checksums) and ``manifests/`` (names and checksums of single images). The steps:
:mod:`~data_prep.fetch` (download), :mod:`~data_prep.archive` (safe unpacking),
:mod:`~data_prep.layout` (which file is which image), :mod:`~data_prep.verify` (is it the published
set), :mod:`~data_prep.ingest` (all of it, atomically).
"""
