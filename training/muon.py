"""Muon for the weight matrices: momentum whose singular values are all set to about one."""

import torch


def orthogonalise(g: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Newton-Schulz iteration on a stack of matrices [n, rows, cols]."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16()
    flip = x.shape[1] > x.shape[2]
    if flip:
        x = x.mT
    x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).bfloat16()
    for _ in range(steps):
        s = x @ x.mT
        x = a * x + (b * s + c * (s @ s)) @ x
    return x.mT if flip else x


class Muon(torch.optim.Optimizer):
    """With `world` processes that have the same gradients, each orthogonalises its share of the matrices."""

    def __init__(self, params, lr=2e-3, momentum=0.95, weight_decay=0.05, world=1, rank=0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.world, self.rank = world, rank

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            found = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["m"] = torch.zeros_like(p)
                m = state["m"].mul_(group["momentum"]).add_(p.grad)
                found[p] = p.grad.add(m, alpha=group["momentum"])
            for p, u in self._orthogonal(found).items():
                # The factor makes the step as large as AdamW's would be.
                scale = 0.2 * max(p.shape) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(u, alpha=-group["lr"] * scale)

    def _orthogonal(self, found: dict[torch.Tensor, torch.Tensor]) -> dict[torch.Tensor, torch.Tensor]:
        flat = torch.zeros(sum(p.numel() for p in found))
        out = {p: part.view_as(p) for p, part in zip(found, flat.split([p.numel() for p in found]), strict=True)}
        shapes = {}
        for p in found:
            shapes.setdefault(p.shape, []).append(p)
        for same in shapes.values():
            if mine := same[self.rank :: self.world]:
                for p, u in zip(mine, orthogonalise(torch.stack([found[p] for p in mine])), strict=True):
                    out[p].copy_(u)
        if self.world > 1:
            torch.distributed.all_reduce(flat)
        return out
