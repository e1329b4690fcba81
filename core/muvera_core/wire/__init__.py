"""How the calls of an index travel as JSON between a service and its clients.

``CALLS`` is the table of calls. Arguments are converted by their name, results by the type hints of the calls.
"""

from __future__ import annotations

from muvera_core.wire.arguments import argument_from_json, argument_to_json, image_bytes, without_local
from muvera_core.wire.calls import CALLS, LOCAL, Call
from muvera_core.wire.codecs import Picture, codec_of
from muvera_core.wire.extra_calls import EncoderInfo, ServiceInfo
from muvera_core.wire.problems import error_from_json, error_to_json, warnings_from_json, warnings_to_json

__all__ = [
    "CALLS",
    "LOCAL",
    "Call",
    "EncoderInfo",
    "Picture",
    "ServiceInfo",
    "argument_from_json",
    "argument_to_json",
    "codec_of",
    "error_from_json",
    "error_to_json",
    "image_bytes",
    "warnings_from_json",
    "warnings_to_json",
    "without_local",
]
