"""GGUF models as OpenVINO graphs whose layers can be read: in a forward pass over token trees, or while sampling.

OpenVINO GenAI gives tokens and log-probs, no hidden states. So the graph that it makes of a GGUF file is kept once,
with an operation of our own after every block that copies the state through; OpenVINO calls it (`taps`). A layer number
is Hugging Face's. It embeds nothing and samples nothing: see `embeddings` and `samplers.openvino`.
"""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trimtab.errors import EngineError, InputError, ModelError
from trimtab.json_file import read_json
from trimtab.lm import catalog

if TYPE_CHECKING:
    from trimtab.lm.tree import Forest

XML = "openvino_model.xml"
_READING = threading.Lock()
_SEEN: list[list[list[npt.NDArray[Any]]]] = []
"""What the taps saw since `taps` began, one entry a layer; empty while nobody reads."""


@contextmanager
def taps() -> Iterator[list[list[npt.NDArray[Any]]]]:
    """While it is open, the one model that runs with taps appends (state, token, position) rows, one entry a layer."""
    seen: list[list[npt.NDArray[Any]]] = []
    with _READING:
        try:
            _SEEN[:] = [seen]
            yield seen
        finally:
            _SEEN.clear()


@lru_cache(maxsize=1)
def tap() -> Any:
    """The operation's class: its output is its first input, which it shows to who reads; the others are shown, too."""
    import openvino as ov

    class Tap(ov.Op):
        class_type_info = ov.DiscreteTypeInfo("Tap", "trimtab")

        def __init__(self, inputs: Any = None) -> None:
            super().__init__(self)
            if inputs is not None:
                self.set_arguments(inputs)
                self.constructor_validate_and_infer_types()

        def validate_and_infer_types(self) -> None:
            self.set_output_type(0, self.get_input_element_type(0), self.get_input_partial_shape(0))

        def clone_with_new_inputs(self, inputs: Any) -> Any:
            return Tap(inputs)

        def get_type_info(self) -> Any:
            return Tap.class_type_info

        def visit_attributes(self, arg0: Any) -> bool:
            return True

        def has_evaluate(self) -> bool:
            return True

        def evaluate(self, output_values: Any, input_values: Any, evaluationContext: Any = None) -> bool:
            for seen in _SEEN:
                seen.append([np.array(x.data) for x in input_values])
            input_values[0].copy_to(output_values[0])
            return True

    return Tap


def write_graph(source: Path, folder: Path) -> None:
    """Writes the graph that GenAI makes of a GGUF file, with taps, to `folder`. ModelError where blocks are not told
    apart."""
    import openvino as ov
    import openvino_genai as genai

    link = folder / "model.gguf"  # GenAI writes beside the file
    try:
        os.link(source, link)
    except OSError:
        link.symlink_to(source)
    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks = 1
    exact = {"KV_CACHE_PRECISION": "f32", "INFERENCE_PRECISION_HINT": "f32"}
    try:
        genai.ContinuousBatchingPipeline(str(link), scheduler, "CPU", {"enable_save_ov_model": True, **exact})
    except (RuntimeError, LookupError) as e:
        raise ModelError(f"OpenVINO cannot load {source} ({(str(e).strip() or repr(e)).splitlines()[-1][:300]})") from e
    link.unlink()
    plain = folder / "plain"
    plain.mkdir()
    for file in folder.glob("openvino_model.*"):
        file.rename(plain / file.name)
    model = ov.Core().read_model(plain / XML)
    given = {p.get_friendly_name(): p.output(0) for p in model.get_parameters()}
    for state in _blocks(model):
        targets = list(state.get_target_inputs())
        seen = tap()([state, given["input_ids"], given["position_ids"]])
        for target in targets:
            target.replace_source_output(seen.output(0))
    model.validate_nodes_and_infer_types()
    ov.save_model(model, folder / XML, compress_to_fp16=False)
    del model
    for file in plain.iterdir():
        file.unlink()
    plain.rmdir()


def _blocks(model: Any) -> list[Any]:
    """The output of every block: each adds twice to the stream of states, after attention and after its MLP."""
    attentions = sum(o.get_type_name() == "ScaledDotProductAttention" for o in model.get_ops())
    sums = [
        o.output(0)
        for o in model.get_ordered_ops()
        if o.get_type_name() == "Add"
        and o.output(0).get_partial_shape().rank.get_length() == 3
        and o.output(0).get_partial_shape()[2].is_static
        and all(_from(o, i).get_type_name() not in ("Constant", "Convert") for i in (0, 1))  # no bias
    ]
    if not attentions or len(sums) != 2 * attentions:
        raise ModelError(f"{len(sums)} sums of states in a graph of {attentions} attentions: its blocks are not known")
    return sums[1::2]


def _from(node: Any, number: int) -> Any:
    return node.input(number).get_source_output().get_node()


@dataclass(frozen=True)
class Graph:
    """A model cut at the highest of `layers`, ready to run, with what is needed to make its rows of tokens."""

    name: str
    tokenizer: Any
    context: int
    ends: frozenset[int]
    width: int
    layers: tuple[int, ...]
    request: Any
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, forest: "Forest") -> dict[int, npt.NDArray[np.float32]]:
        """States (T, D) of each layer at every token."""
        additive_TT = np.where(forest.sees_TT, np.float32(0), np.finfo(np.float32).min)
        with self.lock:
            self.request.infer([forest.token_T[None], forest.position_T[None], additive_TT[None, None]])
            return {layer: self.request.get_output_tensor(i).data[0].copy() for i, layer in enumerate(self.layers)}


def load_graph(name: str, layers: tuple[int, ...]) -> Graph:
    """Cuts and compiles the graph of a model. InputError for a layer that it does not have."""
    from trimtab.lm.load import resident_tokenizer

    openvino = _openvino()
    core = openvino.Core()
    core.add_extension(tap())
    model = core.read_model(catalog.graph(name) / XML)
    model, width = _cut(openvino, model, layers, name)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request, context = compiled.create_infer_request(), context_of(name)
    return Graph(name, resident_tokenizer(name), context, ends_of(name), width, layers, request)


def context_of(name: str) -> int:
    """The most tokens that prompt and completion may have together. No model is loaded for it."""
    return int(config_of(name).get("max_position_embeddings", 2**31))


def config_of(name: str) -> Mapping[str, Any]:
    """A model's configuration, as the folder of its torch form has it."""
    file = catalog.described(name) / "config.json"
    config = read_json(file, "a model's configuration", {"text_config?": dict}, error=ModelError)
    return config.get("text_config", config)


def ends_of(name: str) -> frozenset[int]:
    """Tokens that end an answer, those of the torch form's generation settings among them."""
    from trimtab.lm.chat import end_tokens
    from trimtab.lm.load import resident_tokenizer

    file = catalog.described(name) / "generation_config.json"
    configured = read_json(file, "generation settings").get("eos_token_id") if file.is_file() else None
    return end_tokens(resident_tokenizer(name), configured)


def _cut(openvino: Any, model: Any, layers: tuple[int, ...], name: str) -> tuple[Any, int]:
    """The graph as a function of tokens, positions and a mask: no cache, no head, no block above the highest layer."""
    from openvino import opset13 as op

    ops = model.get_ordered_ops()
    seen = [o for o in ops if o.get_type_name() == "Tap"]
    if max(layers) > len(seen) or min(layers) < 1:
        raise InputError(
            f"{name} has layers 1 to {len(seen)} in OpenVINO, not {layers}; engine torch gives layer 0, too"
        )
    states = [_from_output(seen[layer - 1]) for layer in layers]
    mask, one = op.parameter([1, 1, -1, -1], np.float32, name="mask"), op.constant(np.array([1], np.int64))
    for o in ops:
        kind = o.get_type_name()
        if kind == "ScaledDotProductAttention":
            o.input(3).replace_source_output(mask.output(0))
        elif kind == "Concat" and _from(o, 0).get_type_name() == "Gather" and _is_cache(_from(o, 0)):
            _replace(o, o.input(1).get_source_output())  # keys or values of these tokens alone
        elif kind == "Broadcast" and _from(o, 1).get_type_name() == "Concat" and _from(o, 1).get_input_size() == 5:
            _from(o, 1).input(3).replace_source_output(one.output(0))  # heads are repeated; a 0 there is GenAI's own
        elif kind == "Tap":
            _replace(o, _from_output(o))
    given = {p.get_friendly_name(): p for p in model.get_parameters()}
    cut = openvino.Model([op.result(s) for s in states], [given["input_ids"], given["position_ids"], mask], "states")
    cut.validate_nodes_and_infer_types()
    return cut, states[0].get_partial_shape()[2].get_length()


def _from_output(node: Any) -> Any:
    return node.input(0).get_source_output()


def _is_cache(node: Any) -> bool:
    return _from(node, 0).get_type_name() == "ReadValue"


def _replace(node: Any, output: Any) -> None:
    for target in list(node.output(0).get_target_inputs()):
        target.replace_source_output(output)


def arithmetic(name: str) -> str:
    """How OpenVINO computes: float32, on a CPU with 8-bit dot products with activations rounded in groups of 32 where
    the weights have 8 bits, too."""
    import torch

    able = torch.cpu.get_capabilities()
    rounds = not Path(name).expanduser().is_dir() and any(able.get(k) for k in ("avx512_vnni", "avx_vnni", "amx_int8"))
    return "float32, activations int8" if rounds else "float32"


def _openvino() -> Any:
    try:
        import openvino
    except ImportError as e:
        raise EngineError("OpenVINO needs its extra: pip install 'trimtab[openvino]'") from e
    return openvino
