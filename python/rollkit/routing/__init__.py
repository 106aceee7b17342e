"""Routes of experts: which experts each token of a rollout went to, `[tokens, layers, topk]`.

An engine sends the routes of the whole context with every turn, as base64, and none for the last token.
The functions here decode the rows that are new and no others, give the missing row what the trainer
expects there, and keep rows and tokens together. A column of routes is a `Ragged` with an inner shape:
`concat`, `merge_steps`, `pad`, `pack` and `take` move it like any other.
"""

from rollkit.routing._builder import RouteBuilder as RouteBuilder
from rollkit.routing._cycle import cycle_routes as cycle_routes
from rollkit.routing._decode import decode_routes as decode_routes
from rollkit.routing._join import join_routes as join_routes
from rollkit.routing._mask import route_mask as route_mask
from rollkit.routing._narrow import narrow_routes as narrow_routes
from rollkit.routing._split import NodeRoutes as NodeRoutes
from rollkit.routing._split import split_routes as split_routes

__all__ = [
    "NodeRoutes",
    "RouteBuilder",
    "cycle_routes",
    "decode_routes",
    "join_routes",
    "narrow_routes",
    "route_mask",
    "split_routes",
]
