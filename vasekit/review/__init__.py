"""The filter's review page: a static file to look at what a stage decided, and to overrule it by hand."""

from vasekit.metrics import Measure
from vasekit.review.model import Curve, Item, Review, Table, VaseViews
from vasekit.review.overrides import read_overrides
from vasekit.review.page import write

__all__ = ["Curve", "Item", "Measure", "Review", "Table", "VaseViews", "read_overrides", "write"]
