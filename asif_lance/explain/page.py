"""One prediction as a page to show: the picture, the scores, and the pairs that decided.

The page is one file that loads nothing: pictures are inside it as data, and its policy forbids any
request and any script. Captions and names come from anyone, so the template escapes all of them.
"""

from __future__ import annotations

import base64

from jinja2 import Environment, PackageLoader, StrictUndefined

from asif_lance.encoders import PictureInput
from asif_lance.errors import printable
from asif_lance.explain.content import describe_prediction
from asif_lance.explain.plot import plot_svg
from asif_lance.model import Prediction


def explain_page(prediction: Prediction, picture: PictureInput, *, pairs: int = 8) -> str:
    """The HTML of one prediction: the chosen label and the runner-up, with their pairs.

    Args:
        prediction: from `Model.classify`.
        picture: what was classified, as `classify` takes it.
        pairs: pairs listed per label.

    Raises:
        ImageError: the picture cannot be read any more.
        InputError: `prediction` or `picture` is something else, or `pairs` is below 1.
    """
    shown = describe_prediction(prediction, picture, pairs)
    template = make_environment().get_template("explain.html")
    return template.render(page=shown, plot=plot_svg(shown.labels))


def make_environment() -> Environment:
    """Templates that escape whatever is put into them."""
    environment = Environment(
        loader=PackageLoader("asif_lance.explain"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {"data_uri": _data_uri, "shown": printable}
    return environment


def _data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
