"""`edgevision dataset`: look at labelled pictures, split, convert, merge and augment them."""

from __future__ import annotations

from edgevision.cli._app import new_app
from edgevision.cli.dataset.augmenting import augment
from edgevision.cli.dataset.counting import stats
from edgevision.cli.dataset.rewriting import convert, merge
from edgevision.cli.dataset.splitting import split

app = new_app(no_args_is_help=True)


@app.callback()
def dataset() -> None:
    """Look at labelled pictures; split, convert, merge and augment them.

    Formats: coco (JSON), yolo (text labels), voc (XML), folders (one for each class), csv (labels.csv), masks.
    A folder may hold a dataset.yaml; `role: test` in it marks a held-out test set, whose uses are counted.

    \b
    Example:
      edgevision dataset stats line3/
    """


app.command()(stats)
app.command()(split)
app.command()(convert)
app.command()(merge)
app.command()(augment)
