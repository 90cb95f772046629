"""FILES of sparse autoencoders to the keywords of `SAE`: every word in them is read, or refused by name.

Read: SAELens (version 2 to 6, checkpoints with their scale too), Gemma Scope 1 (`params.npz`) and 2
(`params.safetensors`), EleutherAI's sparsify. Refused with a way out: pickles (dictionary_learning, OpenAI, Goodfire),
Llama Scope, and whatever is no autoencoder of a block's input or output. An SAE read wrongly still gives numbers, so
nothing here falls back to a default for a word that is not known.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trimtab.errors import ModelError
from trimtab.json_file import NUMBER, Kinds, read_json

CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
NORMS = ("none", "layer_norm", "constant_norm_rescale")
DTYPES = ("float32", "float64", "float16", "bfloat16")
ARCHITECTURES = {"standard": "relu", "jumprelu": "jumprelu", "jump_relu": "jumprelu", "topk": "topk",
                 "batchtopk": "batchtopk", "matryoshka_batchtopk": "batchtopk"}  # fmt: skip
RESIDUAL = "residual"
"""The site of a block's input or output, the only one that trimtab reads in a model."""
_PICKLES = ("*.pt", "*.pth", "*.pkl", "*.ckpt", "*.bin")
_KINDS: Kinds = {
    "metadata?": (dict, type(None)), "metadata.trimtab?": (dict, type(None)),
    "activation_fn_kwargs?": (dict, type(None)), "scaling_factor?": (*NUMBER, type(None)),
}  # fmt: skip
_AFTER = ("", "hook_resid_post", "hook_out", "output", "output.0")
_BEFORE = ("hook_resid_pre", "hook_in", "input", "input.0")
_MODELS = {"2b": "google/gemma-2-2b", "9b": "google/gemma-2-9b", "27b": "google/gemma-2-27b"}


def layer_of(hook: str) -> tuple[int | None, str]:
    """Hugging Face's layer number and the site of a hook's name ("blocks.24.hook_resid_post" -> 25, "residual").

    Known are TransformerLens's names of a block's input and output, and modules of Hugging Face that are a block
    ("model.layers.24", "gpt_neox.layers.24.output", "transformer.h.24.input"). Other names come back as the site.
    """
    if m := re.search(r"(?:^|\.)(?:blocks|layers|h)[._](\d+)(?:\.(.*))?$", hook.strip()):
        block, site = int(m[1]), m[2] or ""
        if site in _AFTER:
            return block + 1, RESIDUAL
        return (block, RESIDUAL) if site in _BEFORE else (None, hook)
    if m := re.fullmatch(r"resid_(post|pre)_layer_(\d+)", hook.strip()):  # dictionary_learning
        return int(m[2]) + (m[1] == "post"), RESIDUAL
    return None, hook


def hook_of(layer: int | None) -> str:
    """TransformerLens's name of a layer (25 -> "blocks.24.hook_resid_post", 0 -> "blocks.0.hook_resid_pre")."""
    if layer is None:
        return ""
    return f"blocks.{layer - 1}.hook_resid_post" if layer else "blocks.0.hook_resid_pre"


def read_sae(path: Path, *, hook: str = "", norm_scale: float | None = None) -> dict[str, Any]:
    """The keywords of `SAE` from a folder or file, tensors in float32. ModelError for what cannot be read.

    `hook` stands in for what the files say; `norm_scale` is what the states were multiplied by in training, where the
    files leave it out.
    """
    folder = path.parent if path.is_file() else path
    reader, name = _reader(path, folder)
    try:
        cfg, weights = reader(folder)
        where = f"{folder} ({name})"
        return _keywords({**cfg, **({"hook": hook} if hook else {})}, weights, norm_scale, where)
    except ModelError:
        raise
    except Exception as e:  # numpy, safetensors and words of another kind raise anything here
        raise ModelError(f"{folder}: cannot read {name} ({type(e).__name__}: {e})") from e


def _reader(path: Path, folder: Path) -> tuple[Callable[[Path], tuple[dict[str, Any], dict[str, Tensor]]], str]:
    """Who reads these files, and what they are called. ModelError for files that nobody here reads."""
    if not path.exists():
        raise ModelError(
            f"{path}: no such file or folder; a named release takes a second word, load_sae(release, sae_id)"
        )
    if path.is_file() and path.suffix in (".pt", ".pth", ".pkl", ".ckpt", ".bin"):
        raise _pickle(path)
    if (folder / "params.npz").is_file() or path.suffix == ".npz":
        return (
            lambda _: _gemma_scope(path if path.suffix == ".npz" else folder / "params.npz")
        ), "Gemma Scope, params.npz"
    if (folder / "params.safetensors").is_file():
        return _gemma_scope_2, "Gemma Scope 2, params.safetensors"
    if (folder / "sae.safetensors").is_file() and (folder / CFG).is_file():
        return _sparsify, "sparsify, sae.safetensors"
    if (folder / CFG).is_file() and (folder / WEIGHTS).is_file():
        return _saelens, "SAELens"
    if (folder / "hyperparams.json").is_file():
        raise ModelError(
            f"{folder} is a Llama Scope SAE, which is not read from its files (the unit of its threshold is not in "
            "them): take it with load_sae('llama_scope_lxr_8x', 'l24r_8x') or the like, through SAELens"
        )
    if folder.is_dir() and (found := [f for p in _PICKLES for f in sorted(folder.glob(p))]):
        raise _pickle(found[0])
    forms = f"{CFG} beside {WEIGHTS} (SAELens), params.npz or params.safetensors (Gemma Scope), or sae.safetensors "
    text = f"{path} holds no SAE: no {forms}beside {CFG} (sparsify)"
    if folder.is_dir():
        there = sorted({f.parent for n in (WEIGHTS, "params.npz", "params.safetensors") for f in folder.rglob(n)})
        text += f"; there are {len(there)} below it, such as {there[0]}: name one" if there else ""
    raise ModelError(text)


def _pickle(file: Path) -> ModelError:
    return ModelError(
        f"{file} is a pickle, which may run anything when it is opened: it is not read. Open it yourself "
        f"(torch.load(file, weights_only=True)), then write SAE(W_enc, b_enc, W_dec, b_dec, kind, layer=...).save(dir)"
    )


def _saelens(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    raw = _json(folder / CFG)
    meta = {**raw, **{k: v for k, v in (raw.get("metadata") or {}).items() if v is not None}}
    scaler = folder / "activation_scaler.json"  # beside a checkpoint of SAELens, whose scale is not folded in yet
    cfg = {
        "architecture": raw.get("architecture"),
        "activation": raw.get("activation_fn_str") or raw.get("activation_fn"),
        "activation_kwargs": raw.get("activation_fn_kwargs") or {}, "k": raw.get("k"),
        "norm": raw.get("normalize_activations"), "centered": raw.get("apply_b_dec_to_input"),
        "reshape": raw.get("reshape_activations"), "scale": raw.get("finetuning_scaling_factor"),
        "decoder_norm": raw.get("rescale_acts_by_decoder_norm"), "dtype": raw.get("dtype"),
        "size": (raw.get("d_in"), raw.get("d_sae")), "model": meta.get("model_name"),
        "hook": meta.get("hook_name") or meta.get("hook_point") or meta.get("hf_hook_name"),
        "block": meta.get("hook_layer", meta.get("hook_point_layer")),
        "head": meta.get("hook_head_index", meta.get("hook_point_head_index")), "out": meta.get("hook_name_out"),
        "norm_scale": _json(scaler).get("scaling_factor") if scaler.is_file() else None,
        "card": {"folder": folder.name, **(meta.get("trimtab") or {}),
                 **({"model_kwargs": kw} if (kw := meta.get("model_from_pretrained_kwargs")) else {})},
    }  # fmt: skip
    return cfg, _safetensors(folder / WEIGHTS)


def _gemma_scope(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Gemma Scope 1 says in its folders' names what it is: gemma-scope-2b-pt-res/layer_24/width_16k/average_l0_55."""
    with np.load(file) as data:  # allow_pickle stays False: an array of objects is refused
        weights = {k: torch.tensor(data[k]) for k in data.files}
    cfg = _from_folders(file.parent)
    return {**cfg, "architecture": "jumprelu" if "threshold" in weights else "standard"}, weights


def _gemma_scope_2(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    weights = {re.sub("^w_", "W_", k): v for k, v in _safetensors(folder / "params.safetensors").items()}
    raw = _json(folder / "config.json") if (folder / "config.json").is_file() else {}
    cfg = _from_folders(folder)
    name = str(raw.get("model_name") or "")
    cfg |= {
        "architecture": raw.get("architecture", "jump_relu"), "type": raw.get("type") or cfg.get("type"),
        "model": name.replace("-v3", "-3") or cfg["model"], "hook": raw.get("hf_hook_point_in") or cfg["hook"],
        "out": raw.get("hf_hook_point_out"), "size": (None, raw.get("width")),
        "card": {**cfg["card"], **({"l0": float(raw["l0"])} if raw.get("l0") else {})},
    }  # fmt: skip
    if raw.get("affine_connection") or "affine_skip_connection" in weights:
        cfg["type"] = "transcoder with an affine connection"
    return cfg, weights


def _from_folders(folder: Path) -> dict[str, Any]:
    """What Gemma Scope's folder names tell: the block, the site, the model and the sparsity."""
    parts = folder.resolve().parts[-6:]
    path = "/".join(parts)
    block = re.search(r"(?:^|/)layer_(\d+)(?:[/_]|$)", path)
    here = [i for i, p in enumerate(parts) if p.startswith("layer_")]
    near = parts[max(here[-1] - 1, 0) : here[-1] + 1] if here else ()  # Gemma Scope 2: mlp_out_all/layer_12_width_16k
    named = " ".join([p for p in parts if "gemma-scope" in p or p == "embedding"] + [*near])
    word = re.search(
        r"transcoders?|crosscoder|clt|embedding|resid_post|mlp_out|attn_out|(?<=-)(?:res|mlp|att)\b", named
    )
    site = {"res": "resid_post", "mlp": "mlp_out", "att": "attn_out"}.get(word[0], word[0]) if word else ""
    size = re.search(r"gemma-scope-(2b|9b|27b)-(pt|it)", path)
    l0 = re.search(r"average_l0_(\d+)", path)
    hook = "" if block is None else f"layers.{block[1]}{'' if site in ('', 'resid_post') else '.' + site}"
    return {
        "hook": hook if block else site, "centered": False,
        "type": site if re.match("trans|cross|clt", site) else "sae",
        "model": _MODELS[size[1]] + ("-it" if size[2] == "it" else "") if size else "",
        "card": {"folder": folder.name, **({"l0": float(l0[1])} if l0 else {})},
    }  # fmt: skip


def _sparsify(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """EleutherAI's sparsify: TopK of ReLU, the decoder's bias taken off the input; the folder is the module's name."""
    raw, weights = _json(folder / CFG), _safetensors(folder / "sae.safetensors")
    for old, new in (("encoder.weight", "W_enc"), ("encoder.bias", "b_enc")):
        if old in weights:
            weights[new] = weights.pop(old)
    if "W_enc" in weights:  # torch's layout of a linear layer, and its own name for the decoder is W_dec already
        weights["W_enc"] = weights["W_enc"].T
    for word in ("signed", "transcode", "skip_connection", "multi_topk"):
        if raw.get(word) and word != "multi_topk":  # multi_topk is a term of the training loss
            raise ModelError(f"{folder} (sparsify): {word} is set, which is not read")
    cfg = {
        "architecture": "topk", "k": raw.get("k"), "activation": raw.get("activation"), "centered": True,
        "size": (raw.get("d_in"), raw.get("num_latents") or None), "hook": folder.name.replace("layers_", "layers."),
        "model": _json(config).get("model") if (config := folder.parent / "config.json").is_file() else "",
        "card": {"folder": folder.name},
    }  # fmt: skip
    if layer_of(cfg["hook"])[0] is None and not re.search(r"layers|embed", cfg["hook"]):
        cfg["hook"] = ""  # renamed by its user: the layer is for the caller to say
    return cfg, weights


def _keywords(
    cfg: Mapping[str, Any], weights: dict[str, Tensor], norm_scale: float | None, where: str
) -> dict[str, Any]:
    """One reading of all forms: words checked, tensors checked, scales and decoder norms folded in."""
    kind, k = _kind(cfg, where)
    norm, scale = _norm(cfg, norm_scale, where)
    layer, site = _place(cfg, where)
    threshold = _threshold(kind, weights, where)
    tuned = _finetuning(cfg, weights, where)
    w = {n: _tensor(n, weights, where) for n in ("W_enc", "b_enc", "W_dec", "b_dec")}
    if weights:
        raise ModelError(f"{where}: the tensors {', '.join(sorted(weights))} are not read: it is not a plain SAE")
    _check_shapes(w, threshold, cfg.get("size") or (None, None), where)
    if not 1 <= k <= len(w["b_enc"]) and kind == "topk":
        raise ModelError(f"{where}: k is {k}, with {len(w['b_enc'])} features")
    if cfg.get("decoder_norm"):  # the k largest of z·|W_dec| are then the k largest of z
        norm_F = w["W_dec"].norm(dim=-1)
        w |= {"W_enc": w["W_enc"] * norm_F, "b_enc": w["b_enc"] * norm_F, "W_dec": w["W_dec"] / norm_F[:, None]}
    w |= {"W_enc": w["W_enc"] * scale, "W_dec": w["W_dec"] * tuned[:, None] / scale, "b_dec": w["b_dec"] / scale}
    return {
        "w_enc_DF": w["W_enc"], "b_enc_F": w["b_enc"], "w_dec_FD": w["W_dec"], "b_dec_D": w["b_dec"],
        "kind": "jumprelu" if kind == "batchtopk" else kind, "threshold_F": threshold, "k": k,
        "centered": cfg.get("centered") is not False, "norm": norm, "model": str(cfg.get("model") or ""),
        "layer": layer, "site": site, "card": dict(cfg.get("card") or {}),
    }  # fmt: skip


def _kind(cfg: Mapping[str, Any], where: str) -> tuple[str, int]:
    name = cfg.get("architecture") or "standard"
    if name not in ARCHITECTURES:
        raise ModelError(f"{where}: architecture {name!r} is not read; these are: {', '.join(ARCHITECTURES)}")
    if (what := cfg.get("type") or "sae") != "sae" or (cfg.get("out") or cfg.get("hook")) != cfg.get("hook"):
        raise ModelError(f"{where}: it maps {cfg.get('hook')} to {cfg.get('out') or 'elsewhere'} ({what}): no SAE")
    kind, activation, k = ARCHITECTURES[name], cfg.get("activation") or "relu", cfg.get("k")
    if kind == "relu" and activation == "topk":  # SAELens before version 6
        kind = "topk"
    if activation not in ("relu", "topk") or (activation == "topk" and kind != "topk"):
        raise ModelError(f"{where}: the activation {activation!r} is not read, only relu, jumprelu and topk are")
    more = dict(cfg.get("activation_kwargs") or {})
    k = more.pop("k", None) if k is None else k
    if more:
        raise ModelError(f"{where}: settings of the activation that are not read: {more}")
    if kind == "topk" and (isinstance(k, bool) or not isinstance(k, (int, float)) or k != int(k)):
        raise ModelError(f"{where}: a TopK SAE needs a whole number k, its files say {k!r}")
    for word, known in (("dtype", DTYPES), ("reshape", ("none",))):
        said = str(cfg.get(word) or known[0]).removeprefix("torch.")
        if said not in known:
            raise ModelError(f"{where}: {word} {said!r} is not read, only {', '.join(known)}")
    if not isinstance(cfg.get("centered"), (bool, type(None))):
        raise ModelError(f"{where}: apply_b_dec_to_input is {cfg['centered']!r}, neither true nor false")
    return kind, int(k) if kind == "topk" and k is not None else 0


def _norm(cfg: Mapping[str, Any], norm_scale: float | None, where: str) -> tuple[str, float]:
    """The normalisation at run time, and the factor that is to be folded into the weights."""
    said = {None: "none", False: "none", True: "expected_average_only_in"}.get(cfg.get("norm"), cfg.get("norm"))
    if said in NORMS:
        return str(said), 1.0
    scale = norm_scale if norm_scale is not None else cfg.get("norm_scale")
    if said != "expected_average_only_in":
        raise ModelError(f"{where}: normalize_activations {said!r} is not read; these are: {', '.join(NORMS)}")
    if scale is None or not 0 < float(scale) < float("inf"):
        raise ModelError(
            f"{where}: it was trained on scaled activations (normalize_activations 'expected_average_only_in') and its "
            "files lack the scale: pass load_sae(..., norm_scale=sqrt(D) / the mean norm in training), or write 'none' "
            f"into {CFG} if the scale is folded into the weights"
        )
    return "none", float(scale)


def _place(cfg: Mapping[str, Any], where: str) -> tuple[int | None, str]:
    hook, block = str(cfg.get("hook") or ""), cfg.get("block")
    layer, site = layer_of(hook)
    if hook and layer is None:
        raise ModelError(
            f"{where}: its hook {hook!r} is not a block's input or output (the residual stream), where a leash reads; "
            "if it is one under another name, pass load_sae(..., hook='blocks.N.hook_resid_post')"
        )
    if cfg.get("head") is not None:
        raise ModelError(f"{where}: it reads one attention head (hook_head_index {cfg['head']}), not a block's output")
    number = re.search(r"\d+", hook)
    if block is not None and number and int(number[0]) != int(block):
        raise ModelError(f"{where}: its files name block {block} and the hook {hook!r}: which is it? Pass hook=")
    return layer, site


def _threshold(kind: str, weights: dict[str, Tensor], where: str) -> Tensor | None:
    names = {"threshold": 0, "log_threshold": 1, "topk_threshold": 0}
    found = [n for n in names if n in weights]
    if kind not in ("jumprelu", "batchtopk"):
        for n in found:
            del weights[n]  # a TopK SAE may carry one for another use; its encoding is the k largest
        return None
    if not found:
        raise ModelError(f"{where}: no tensor 'threshold', which a JumpReLU or BatchTopK SAE needs")
    value = _tensor(found[0], weights, where)
    value = value.exp() if names[found[0]] else value
    return value.expand(len(weights["b_enc"])).clone() if value.ndim == 0 and "b_enc" in weights else value


def _finetuning(cfg: Mapping[str, Any], weights: dict[str, Tensor], where: str) -> Tensor:
    """SAELens's finetuning scale, which multiplies the features before the decoder: folded into it."""
    found = [n for n in ("finetuning_scaling_factor", "scaling_factor") if n in weights]
    tuned = _tensor(found[0], weights, where) if found else torch.ones(1)
    if torch.allclose(tuned, torch.ones_like(tuned)):
        if cfg.get("scale") and not found:
            raise ModelError(f"{where}: finetuning_scaling_factor is {cfg['scale']!r}, but there is no such tensor")
        return torch.ones(1)
    if not cfg.get("scale"):
        raise ModelError(f"{where}: there is a finetuning scale ({found[0]}) that {CFG} does not speak of")
    return tuned


def _check_shapes(w: Mapping[str, Tensor], threshold: Tensor | None, size: tuple[Any, Any], where: str) -> None:
    D, F = (len(w[n]) if w[n].ndim == 1 else -1 for n in ("b_dec", "b_enc"))
    said_D, said_F = (int(given or found) for given, found in zip(size, (D, F), strict=True))
    wanted = {"W_enc": (said_D, said_F), "b_enc": (said_F,), "W_dec": (said_F, said_D), "b_dec": (said_D,)}
    found = {n: tuple(w[n].shape) for n in wanted}
    if threshold is not None:
        wanted["threshold"], found["threshold"] = (said_F,), tuple(threshold.shape)
    if wrong := [f"{n} is {found[n]}, not {wanted[n]}" for n in wanted if found[n] != wanted[n]]:
        raise ModelError(f"{where}: shapes do not fit {said_D} inputs and {said_F} features: {'; '.join(wrong)}")


def _tensor(name: str, weights: dict[str, Tensor], where: str) -> Tensor:
    if name not in weights:
        raise ModelError(f"{where}: no tensor {name!r}: it is not a plain SAE")
    value = weights.pop(name)
    if not value.is_floating_point():
        raise ModelError(f"{where}: {name} holds {value.dtype}, not floating-point numbers")
    if not torch.isfinite(value).all():
        raise ModelError(f"{where}: {name} holds NaN or infinite numbers")
    return value.float().contiguous()


def _json(file: Path) -> dict[str, Any]:
    return read_json(file, "an SAE's configuration", _KINDS, error=ModelError, do="copy or download it again")


def _safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(file)
