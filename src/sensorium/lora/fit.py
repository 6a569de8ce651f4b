"""From an adapter's tensors to pairs of factors for the layers of a loaded model."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sensorium.errors import ConfigurationError
from sensorium.families.family import Config, Family
from sensorium.lora.tensors import AdapterFiles, listed
from sensorium.model.linear import Linear
from sensorium.model.lora import Lora, Pair, Site, Sites

_Placed = tuple[Site, torch.Tensor, torch.Tensor]  # where; (rank, in_features); (size, rank), scaled


def fit(
    files: AdapterFiles,
    family: Family,
    config: Config,
    towers: Mapping[str, Sites],
    dtype: torch.dtype,
    device: torch.device,
    max_rank: int,
) -> Lora:
    """Return the adapter as the model runs it.

    Args:
        config: the base's config.json.
        towers: "decoder" and the encoders' names -> their layers.
        dtype, device: of the model.

    Raises:
        ConfigurationError: tensors do not fit the model; the message names them, with shapes.
    """
    if files.whole:
        raise ConfigurationError(
            f"The adapter {files.path} brings whole tensors (modules_to_save): {listed(sorted(files.whole))}. Beside "
            f"others it cannot run; merge it: `sensorium merge-lora {files.path}`."
        )
    wrong: list[str] = []
    placed: list[tuple[str, _Placed]] = []
    for module, (down, up) in sorted(files.factors.items()):
        rank = files.config.rank(module)
        if rank > max_rank:
            raise ConfigurationError(
                f"The adapter {files.path} has rank {rank}; the limit is {max_rank} (--max-lora-rank)."
            )
        if len(down.shape) != 2 or len(up.shape) != 2 or down.shape[0] != rank or up.shape[1] != rank:
            shapes = f"lora_A {tuple(down.shape)}, lora_B {tuple(up.shape)}"
            wrong.append(f"{module} ({shapes}; adapter_config.json says rank {rank})")
            continue
        scaled = up.float() * files.config.scale(module)
        found = _place(module, down, scaled, family, config, towers)
        if isinstance(found, str):
            wrong.append(f"{module} ({found})")
        else:
            placed += found
    if wrong:
        raise ConfigurationError(
            f"{len(wrong)} of the {len(files.factors)} layers of the adapter {files.path} do not fit this model: "
            f"{listed(wrong)}. It was made for {files.config.base or 'another model'!r}."
        )
    pairs = _joined([part for _, part in placed], dtype, device)
    parts = frozenset(part for part, _ in placed)
    return Lora(files.key, pairs, parts, max((len(down) for _, (_, down, _) in placed), default=0))


def _place(
    module: str, down: torch.Tensor, up: torch.Tensor, family: Family, config: Config, towers: Mapping[str, Sites]
) -> list[tuple[str, _Placed]] | str:
    """Find the layer's places, several where it is cut, none where it is not run; a string says what is wrong."""
    target = family.rename(f"{module}.weight")
    if target is None or target[0] not in towers:
        return "there is no such layer"
    part, name = target
    sites = towers[part]
    cut: Mapping[str, torch.Tensor] = {name: up}
    if part == "decoder" and family.convert is not None:
        try:
            cut = family.convert(config, cut)
        except RuntimeError:
            return f"lora_B {tuple(up.shape)} has another number of rows than the layer"
    result: list[tuple[str, _Placed]] = []
    for weight, rows in cut.items():
        layer = weight.removesuffix(".weight")
        site = sites.find(layer)
        if site is None:
            if layer in sites.unused:
                continue
            return "there is no such linear layer"
        wanted = (site.size, site.layer.in_features)
        if (rows.shape[0], down.shape[1]) != wanted:
            return f"lora_A {tuple(down.shape)} and lora_B {tuple(rows.shape)} for a layer of {wanted}"
        result.append((part, (site, down, rows)))
    return result


def _joined(placed: list[_Placed], dtype: torch.dtype, device: torch.device) -> dict[Linear, Pair]:
    """One pair for each of our layers: ranks side by side, each reaching only the outputs that are its own."""
    by_layer: dict[Linear, list[_Placed]] = {}
    for item in placed:
        by_layer.setdefault(item[0].layer, []).append(item)
    pairs: dict[Linear, Pair] = {}
    for layer, items in by_layer.items():
        up = torch.zeros(sum(len(down) for _, down, _ in items), layer.out_features)  # (rank, out_features)
        start = 0
        for site, down, rows in items:
            wide = rows if site.scale is None else rows * site.scale.to(rows.device)[:, None]
            up[start : start + len(down), site.start : site.start + site.size] = wide.T
            start += len(down)
        joined = torch.cat([down.float() for _, down, _ in items])  # (rank, in_features)
        pairs[layer] = Pair(joined.to(device, dtype).contiguous(), up.to(device, dtype))
    return pairs
