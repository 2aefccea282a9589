"""``holdfast config``: the settings of a cluster, and how they are changed while it runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.cli.kit.columns import print_columns
from holdfast.cli.kit.connection import AsJson, ClusterName, Manager, TokenFile, connect
from holdfast.errors import BadInput, HoldfastError, Refused

app = typer.Typer(
    help="The settings of a cluster; changes take effect at once.",
    no_args_is_help=True,
    add_completion=False,
)

Pairs = Annotated[
    list[str],
    typer.Argument(
        metavar="KEY VALUE [KEY VALUE]…",
        help="Settings, as config show lists them.",
        show_default=False,
    ),
]
KEY_IS_VALUE = re.compile(r"[a-z][\w.]*=")
"""As ``sandbox up --set`` accepts it."""
Keys = Annotated[
    list[str],
    typer.Argument(metavar="KEY…", help="Settings, as config show lists them.", show_default=False),
]

EDIT_HEAD = """\
# Settings of {cluster} that were changed while it runs. A key that is taken out is as in the manager's file
# again, or as by default. Save and leave the editor to have the changes made, all or none.
#
# In force now:
"""


@app.command()
def show(
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show every setting: its value, the source of that value (default, file, store), and its meaning."""
    client, name = connect(manager, token_file, cluster)
    answer = client.settings(name)
    if as_json:
        print(json.dumps(answer))
    else:
        _print(answer["settings"])


@app.command("set", context_settings={"ignore_unknown_options": True})
def set_values(
    pairs: Pairs,
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Change settings, all or none: KEY VALUE, or KEY=VALUE."""
    if all(KEY_IS_VALUE.match(each) for each in pairs):
        pairs = [part for each in pairs for part in each.split("=", 1)]
    # a value may begin with a dash (-1), a key cannot
    if wrong := next((each for each in pairs if each.startswith("--")), None) or next(
        (each for each in pairs[::2] if each.startswith("-")), None
    ):
        raise typer.BadParameter(f"no such option: {wrong}")
    if len(pairs) % 2:
        raise BadInput(pairs[-1], "needs a value: holdfast config set KEY VALUE [KEY VALUE]…")
    wanted = dict(zip(pairs[::2], pairs[1::2], strict=True))
    if len(wanted) * 2 != len(pairs):
        raise BadInput("config set", "a key is given twice")
    client, name = connect(manager, token_file, cluster)
    _tell(client.change_settings(name, wanted), [f"{k} = {v}" for k, v in wanted.items()], as_json)


@app.command()
def unset(
    keys: Keys,
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Undo changes: the keys have the values of the manager's file again, or their defaults."""
    client, name = connect(manager, token_file, cluster)
    answer = client.change_settings(name, {}, keys)
    values = {each["key"]: each for each in client.settings(name)["settings"]}
    _tell(answer, [f"{k} = {values[k]['text']} ({values[k]['source']})" for k in keys], as_json)


@app.command()
def edit(
    manager: Manager = None, cluster: ClusterName = None, token_file: TokenFile = None
) -> None:
    """Change settings in $VISUAL or $EDITOR; what is refused is offered again, with the reason."""
    client, name = connect(manager, token_file, cluster)
    answer = client.settings(name)
    stored = {each["key"]: each for each in answer["settings"] if each["source"] == "store"}
    before = _document(name, answer["settings"])
    text = before
    while True:
        text = _edited(text)
        if _plain(text) == _plain(before):
            print("nothing was changed")
            return
        try:
            wanted = _settings(text)
            removed = [key for key in stored if key not in wanted]
            changed = client.change_settings(name, wanted, removed, answer["version"])
        except HoldfastError as error:
            text = f"# Refused: {error}\n{_without_complaint(text)}"
            print(f"holdfast: {error}", file=sys.stderr)
            if not _again():
                raise Refused("nothing was changed") from error
            continue
        told = [f"{key} = {value}" for key, value in wanted.items()]
        _tell(changed, [*told, *(f"{key} is taken out" for key in removed)], False)
        return


def _again() -> bool:
    return sys.stdin.isatty() and typer.confirm("Edit again?", default=True)


def _print(items: list[dict[str, Any]]) -> None:
    told: set[str] = set()
    rows = []
    for item in items:
        # a key that every member has is explained once
        meaning = "" if item["meaning"] in told else item["meaning"]
        told.add(item["meaning"])
        style = "" if item["source"] == "default" else "bold"
        value = item["text"] or "-"
        rows.append([(item["key"], style), (value, style), (item["source"], ""), (meaning, "dim")])
    print_columns(("key", "value", "from", "meaning"), rows)


def _tell(answer: dict[str, Any], what: list[str], as_json: bool) -> None:
    """Print what was set; what that gives up goes to standard error, which is seen even if the output is redirected."""
    if as_json:
        print(json.dumps(answer))
        return
    for line in what:
        print(line)
    for note in answer.get("notes", ()):
        print(f"note: {note}", file=sys.stderr)


def _document(cluster: str, items: list[dict[str, Any]]) -> str:
    """What the store holds, as YAML, below everything that is in force, as comments."""
    import yaml

    from holdfast.config.settings import nested

    head = EDIT_HEAD.format(cluster=cluster)
    lines = [f"#   {each['key']}: {each['text'] or repr('')}" for each in items]
    stored = {each["key"]: _written(each) for each in items if each["source"] == "store"}
    body = yaml.safe_dump(nested(stored), sort_keys=False) if stored else ""
    return head + "\n".join(lines) + "\n\n" + body


def _written(item: dict[str, Any]) -> Any:
    """A number or truth value as it is, anything else as an operator writes it."""
    return item["value"] if isinstance(item["value"], bool) else item["text"]


def _settings(text: str) -> dict[str, Any]:
    """:raises BadInput: naming the key"""
    from holdfast.config.load import mapping
    from holdfast.config.settings import layer

    return dict(layer(mapping(text, "settings"))) if _plain(text) else {}


def _plain(text: str) -> str:
    lines = (line.rstrip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.lstrip().startswith("#"))


def _without_complaint(text: str) -> str:
    return (
        "\n".join(line for line in text.splitlines() if not line.startswith("# Refused: ")) + "\n"
    )


def _edited(text: str) -> str:
    """The text as the editor left it.

    :raises Refused: there is no editor, or it failed
    """
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Refused(
            "an editor needs a terminal; nothing was changed: set a key by holdfast config set, or name an editor that "
            "needs none in $VISUAL"
        )
    editor = editor or "vi"
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        path = Path(folder) / "settings.yaml"
        path.write_text(text)
        try:
            subprocess.run([*shlex.split(editor), str(path)], check=True)
            return path.read_text()
        except subprocess.CalledProcessError as error:
            why = f"the editor {editor!r} ended with status {error.returncode}"
        except (OSError, ValueError) as error:
            why = f"the editor {editor!r} cannot be run: {error}"
        raise Refused(f"{why}; nothing was changed")
