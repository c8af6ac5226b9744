"""What forward code in the wild does, a feature at a time, as lines of a generated model (tests/generated/models.py).

`h` is (N, 4, 8) throughout. `a`, `b` and `c` are lines in the segments, `b` right after the first cut and `c` right
after the second; `init` makes the layers, whose names begin with their segment's.
"""

from __future__ import annotations

from typing import NamedTuple

EQUAL, EITHER = "equal", "either"  # and otherwise, what the line says that refuses it


class Feature(NamedTuple):
    """Lines of a model, and what is to become of it: equal to the uncut model, refused, or either."""

    init: str = ""
    a: str = ""
    b: str = ""
    c: str = ""
    methods: str = ""
    right: str = EQUAL


OVERRIDE = """
def train(self, mode=True):
    super().train(mode)
    self.b_norm.eval()
    return self
"""

FEATURES: dict[str, Feature] = {
    # what crosses
    "learned scale": Feature(
        "self.a_log = nn.Parameter(torch.tensor(0.1))", "scale = self.a_log.exp()", "h = h * scale"
    ),
    "mean to the end": Feature(a="mean = h.mean()", c="h = h + mean"),
    "scale of b": Feature(
        "self.b_log = nn.Parameter(torch.tensor(0.1))", b="gain = self.b_log.exp()", c="h = h * gain"
    ),
    "complex": Feature(a="z = torch.fft.rfft(h, dim=-1)", b="h = h + torch.fft.irfft(z, n=8, dim=-1)"),
    "complex layer": Feature(
        "self.a_spectrum = Spectrum(); self.b_back = Back()", "z = self.a_spectrum(h)", "h = h + self.b_back(z)"
    ),
    "complex weights": Feature("self.b_filter = Filter()", b="h = h + self.b_filter(h)"),
    "float mask": Feature(a="mask = (h > 0).to(h.dtype)", b="h = h * mask"),
    "attention mask": Feature(
        a="bias = torch.zeros_like(h[:, :, :4]).masked_fill(h[:, :, :4] < 0, -1.0)",
        b="h = h + functional.scaled_dot_product_attention(h, h, h, attn_mask=bias)",
    ),
    "bool mask": Feature(a="above = h > 0", b="h = torch.where(above, h, 0.1 * h)"),
    "whole numbers": Feature(a="order = h.argsort(-1)", b="h = h + h.gather(-1, order)"),
    "halves cross": Feature(a="low = h.bfloat16()", b="h = h + low.to(h.dtype)"),
    "halves in b": Feature("self.b_low = nn.Linear(8, 8).bfloat16()", b="h = h + self.b_low(h.bfloat16()).to(h.dtype)"),
    "doubles in b": Feature("self.b_wide = nn.Linear(8, 8).double()", b="h = h + self.b_wide(h.double()).to(h.dtype)"),
    "doubles cross": Feature(a="wide = h.double()", b="h = h + wide.to(h.dtype)"),
    "named tuple": Feature("self.a_pair = Paired()", "pair = self.a_pair(h)", "h = h + pair.second"),
    "dict": Feature("self.a_dict = Keyed()", "found = self.a_dict(h)", 'h = h + found["second"]'),
    "nested": Feature("self.a_nest = Nesting()", "deep = self.a_nest(h)", 'h = h + deep[1][0] * deep[1][1]["x"]'),
    "nested in forward": Feature(a='deep = (h, [h * 2, {"x": h + 1}])', c='h = h + deep[1][0] * deep[1][1]["x"]'),
    "through b": Feature(a="early = h", c="h = h + early"),
    "a size": Feature(a="count = h.shape[0]; width = h.size(-1)", b="h = h.reshape(count, 4, width) * (8 / width)"),
    "a device": Feature(b="h = h + torch.ones(8, device=x.device)", right=EITHER),
    "a type": Feature(b="h = h.to(x.dtype)", right=EITHER),
    "new zeros": Feature(b="h = h + x.new_zeros(8)", right=EITHER),
    "new zeros of h": Feature(b="h = h + h.new_ones(8)"),
    # state
    "buffer assigned": Feature("self.b_centre = Centred()", b="h = self.b_centre(h)"),
    "buffer assigned in a": Feature("self.a_centre = Centred()", "h = self.a_centre(h)"),
    "buffer assigned in c": Feature("self.c_centre = Centred()", c="h = self.c_centre(h)"),
    "buffer counts": Feature("self.b_count = Counter()", b="h = self.b_count(h)"),
    "buffer counts in a": Feature("self.a_count = Counter()", "h = self.a_count(h)"),
    "unsaved buffer": Feature("self.c_count = Counter(persistent=False)", c="h = self.c_count(h)"),
    "attribute counts": Feature("self.b_seen = Seen()", b="h = self.b_seen(h)", right="seen"),
    "attribute keeps": Feature("self.a_last = Last()", "h = self.a_last(h)", right="last"),
    "root counts": Feature(
        'self.register_buffer("steps", torch.zeros(()))', "self.steps += 1", "h = h / (1 + self.steps)", right="steps"
    ),
    "root assigns": Feature(
        'self.register_buffer("level", torch.zeros(()))', "self.level = 0.9 * self.level + h.detach().mean()",
        "h = h - self.level", right="level",
    ),
    "root attribute": Feature("self.calls = 0", "self.calls += 1; h = h / self.calls", right="calls"),
    # before anything is traced
    "parameter arithmetic": Feature(
        "self.a_gate = nn.Parameter(torch.rand(8))", "gate = self.a_gate * 2 - self.a_gate.abs(); h = h * gate"
    ),
    "parameter function": Feature(
        "self.b_gate = nn.Parameter(torch.rand(8))", b="h = h * torch.sigmoid(self.b_gate).clamp(0.1, 0.9)"
    ),
    "buffer arithmetic": Feature(
        'self.register_buffer("a_grid", torch.rand(8))', "grid = self.a_grid * 2 - 1; h = h + grid", right=EITHER
    ),
    "constant on both sides": Feature(
        'self.register_buffer("table", torch.rand(8))', "h = h + self.table", "h = h * self.table"
    ),
    "isinstance": Feature(a="if isinstance(x, torch.Tensor):\n    h = h * 0.5", right=EITHER),
    "assert": Feature(a="assert isinstance(x, torch.Tensor) and x.ndim == 4", right=EITHER),
    "assert of a shape": Feature(b="assert h.shape[1] == 4, h.shape", right=EITHER),
    "module in forward": Feature(a="h = nn.ReLU()(h)", b="h = nn.Softplus()(h)", right=EITHER),
    "no grad": Feature(b="with torch.no_grad():\n    gain = h.mean()\nh = h * gain", right=EITHER),
    "detached": Feature(b="h = h * h.detach().mean()"),
    # randomness
    "python's random": Feature(a="h = h * random.random()", right="random"),
    "python's random decides": Feature(b="if random.random() < 0.5:\n    h = h * 2", right="random"),
    "numpy's random": Feature(b="h = h * float(np.random.rand())", right="random"),
    "torch's random": Feature(c="h = h * torch.rand(1)", right="random"),
    "torch's random like": Feature(b="h = h + 0.1 * torch.rand_like(h, dtype=torch.float32)"),
    "noise layer": Feature("self.b_noise = Noise()", b="h = self.b_noise(h)"),
    "dropout": Feature(
        "self.a_drop = nn.Dropout(0.2); self.b_drop = nn.Dropout(0.3)", "h = self.a_drop(h)", "h = self.b_drop(h)"
    ),
    "functional dropout": Feature(b="h = functional.dropout(h, 0.3, self.training)"),
    "dropout and noise": Feature(
        "self.b_drop2 = nn.Dropout(0.3); self.b_noise2 = Noise()", b="h = self.b_noise2(self.b_drop2(h))"
    ),
    "two dropouts": Feature(
        "self.b_drop3 = nn.Dropout(0.3); self.b_drop4 = nn.Dropout1d(0.3)", b="h = self.b_drop4(self.b_drop3(h))"
    ),
    # modules
    "train overridden": Feature("self.b_norm = nn.BatchNorm1d(4)", b="h = self.b_norm(h)", methods=OVERRIDE),
    "eval in forward": Feature(
        "self.b_still = nn.BatchNorm1d(4)", b="self.b_still.eval(); h = self.b_still(h)", right=EITHER
    ),
    "a layer's train overridden": Feature("self.b_frozen = Frozen()", b="h = self.b_frozen(h)"),
    "parameter hook": Feature(
        "self.a_hooked = nn.Linear(8, 8); self.a_hooked.weight.register_hook(clipped)", "h = h + self.a_hooked(h)",
    ),
    "parameter hook in b": Feature(
        "self.b_hooked = nn.Linear(8, 8); self.b_hooked.weight.register_post_accumulate_grad_hook(clip)",
        b="h = h + self.b_hooked(h)",
        right="^equal$|the hook on b_hooked.weight(, in B| would get the scaled gradients of several phones)",
    ),
    "parameter hook counts": Feature(
        "self.b_counts = Counting()", b="h = h + self.b_counts(h)", right="Change the hook so that it keeps nothing",
    ),
    "tied inside": Feature(
        "self.b_one = nn.Linear(8, 8); self.b_two = nn.Linear(8, 8); self.b_two.weight = self.b_one.weight",
        b="h = self.b_two(torch.tanh(self.b_one(h)))",
    ),
    "tied across": Feature(
        "self.a_tie = nn.Linear(8, 8); self.b_tie = nn.Linear(8, 8); self.b_tie.weight = self.a_tie.weight",
        "h = self.a_tie(h)", "h = self.b_tie(h)", right="tied",
    ),
    "called twice": Feature("self.b_twice = nn.Linear(8, 8)", b="h = self.b_twice(torch.tanh(self.b_twice(h)))"),
    "called across": Feature("self.a_both = nn.Linear(8, 8)", "h = self.a_both(h)", "h = self.a_both(h)", right="tied"),
    "frozen": Feature("self.b_fixed = nn.Linear(8, 8).requires_grad_(False)", b="h = h + self.b_fixed(h)"),
    "unused": Feature("self.b_unused = nn.Linear(8, 8)"),
    "in place after the cut": Feature(b="h = h.relu_()", c="h += 0.1"),
    "in place of a view": Feature(b="h[:, 0] = 0.5 * h[:, 1]", right=EITHER),
    "statistics in a": Feature("self.a_bn = nn.BatchNorm1d(4)", "h = self.a_bn(h)"),
    "spectral norm": Feature(
        "self.b_sn = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))", b="h = h + self.b_sn(h)", right=EITHER
    ),
    "weight norm": Feature(
        "self.b_wn = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))", b="h = h + self.b_wn(h)", right=EITHER
    ),
    "recurrent": Feature("self.b_gru = nn.GRU(8, 8, batch_first=True)", b="h = h + self.b_gru(h)[0]"),
}  # fmt: skip
