"""``python -m docs``: write the pages of the reference that are not up to date."""

from __future__ import annotations

import click

from docs._pages import FOLDER, pages


def main() -> None:
    """Write every page that differs, and remove pages of things that are gone."""
    wanted = pages()
    for path in sorted(FOLDER.glob("*.md")):
        if path.name not in wanted:
            path.unlink()
            click.echo(f"removed {path.name}")
    for name, text in wanted.items():
        path = FOLDER / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            click.echo(f"wrote {name}")


if __name__ == "__main__":
    main()
