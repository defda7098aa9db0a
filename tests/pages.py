"""HTML pages that the commands write, as tests read them."""

from pathlib import Path
from xml.etree import ElementTree


def xml(page: Path) -> ElementTree.Element:
    """Return a page's body; it is such that XML's rules hold for it, too."""
    text = page.read_text()
    return ElementTree.fromstring(text[text.index("<body>"):text.index("</body>") + 7])
