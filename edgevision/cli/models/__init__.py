"""`edgevision models`: what is there, what it is, whether it is whole, and bringing and taking away one's own."""

from __future__ import annotations

from edgevision.cli._app import new_app
from edgevision.cli.models.adding import add
from edgevision.cli.models.listing import list_models, show, verify
from edgevision.cli.models.moving import export_model, import_model, pull, remove

app = new_app(no_args_is_help=True)


@app.callback()
def models() -> None:
    """List, show, add, pull, remove, export, import and verify models.

    A model is a folder with a model.yaml. Your own are in the folder that EDGEVISION_MODELS names, else in `models` under
    the state folder; they come before the shipped ones.
    """


app.command("list")(list_models)
app.command()(show)
app.command()(add)
app.command()(pull)
app.command()(remove)
app.command("export")(export_model)
app.command("import")(import_model)
app.command()(verify)
