"""How good a model is on labelled pictures: `edgevision evaluate`.

`run.py` shows the pictures to the model, the daemon's own way; one file for each kind of figure (`detection`, `voc`,
`classification`, `segmentation`); `corruptions` spoils pictures on purpose; `against` compares two models; `report`,
`tables` and `plots` say it. Nothing here prints.
"""
