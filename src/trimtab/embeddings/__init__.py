"""COMPLETIONS to VECTORS: hidden states, sentence encoders, `/v1/embeddings`, and the stage that stores them."""

from typing import TYPE_CHECKING

from trimtab.lazy import lazy

if TYPE_CHECKING:
    from trimtab.embeddings.encoder import Encoder
    from trimtab.embeddings.endpoint import Endpoint
    from trimtab.embeddings.graph_states import GraphStates
    from trimtab.embeddings.hidden_states import HiddenStates
    from trimtab.embeddings.ngrams import Both, HashedNgrams, OfPrompts, prompts_from_card
    from trimtab.embeddings.static import StaticVectors
    from trimtab.embeddings.stored import Stored, from_card

__all__ = [
    "Both",
    "Encoder",
    "Endpoint",
    "GraphStates",
    "HashedNgrams",
    "HiddenStates",
    "OfPrompts",
    "StaticVectors",
    "Stored",
    "from_card",
    "prompts_from_card",
]
_HOMES = {
    "Both": "ngrams",
    "Encoder": "encoder",
    "Endpoint": "endpoint",
    "GraphStates": "graph_states",
    "HashedNgrams": "ngrams",
    "HiddenStates": "hidden_states",
    "OfPrompts": "ngrams",
    "StaticVectors": "static",
    "Stored": "stored",
    "from_card": "stored",
    "prompts_from_card": "ngrams",
}
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)
