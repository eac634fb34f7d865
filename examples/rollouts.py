"""Learn from rollouts: `python examples/rollouts.py OUTPUT [ROUNDS]` makes clips of the demo's model redder.

Each round renders clips on workers that stay, rewards them, and moves the weights towards what was rewarded
(DDPO, Black et al. 2023): the ratio of log-probabilities is taken over the very samples that were rendered.
"""

import sys

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import framefleet
from framefleet.plugins.demo.prepare import MODEL

OUTPUT, ROUNDS = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10
STEPS, SEEDS, CLIP, RATE = 6, 6, 0.2, 3e-4
TOKENS = 64  # of prompts, as rendered and as learned from
PROMPTS = ["a ball bounces on a grey background", "a square moves to the right"]
JOB = {
    "output": OUTPUT,
    "model": {"path": str(MODEL), "dtype": "fp32", "device": "cpu"},
    "defaults": {
        "scheduler": "flow_euler(stochastic_sampling=true)",
        "num_inference_steps": STEPS,
        "guidance_scale": 1.0,
        "num_frames": 9,
        "height": 64,
        "width": 64,
        "max_sequence_length": TOKENS,
    },
    "keep": {"latents": "all", "log_probs": True},
    "fleet": {"workers": 2, "gpus_per_worker": 0},
}

pipe = framefleet.load_model(MODEL, dtype="fp32", device="cpu").pipe
encode = {"do_classifier_free_guidance": False, "max_sequence_length": TOKENS}
with torch.no_grad():
    texts = {prompt: pipe.encode_prompt(prompt, **encode)[0] for prompt in PROMPTS}
scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True)
network = pipe.transformer.requires_grad_(True)
optimizer = torch.optim.AdamW(network.parameters(), lr=RATE)


def reward(frames):
    """Return by how much red stands out."""
    red, green, blue = frames.reshape(-1, 3).mean(axis=0) / 255
    return float(red - (green + blue) / 2)


def log_probs(kept, text):
    """Yield the log-probability of each sampled step under the weights as they are now, and as it was."""
    scheduler.set_timesteps(STEPS)
    for step, t in enumerate(scheduler.timesteps[:-1]):  # the last adds no noise
        sample, drawn = kept[f"latents.{step}"], kept[f"latents.{step + 1}"]
        prediction = network(sample, t.expand(len(sample)), text, return_dict=False)[0]
        yield framefleet.step_log_prob(scheduler, drawn, prediction, t, sample)[0], kept["log_probs"][step]


with framefleet.fleet(JOB) as fleet:
    for number in range(1, ROUNDS + 1):
        rows = [{"prompt": prompt, "seed": 100 * number + n} for prompt in PROMPTS for n in range(SEEDS)]
        records = fleet.render(rows).to_pylist()
        rewards = torch.tensor([reward(fleet.output.frames(record)) for record in records])
        advantages, furthest = (rewards - rewards.mean()) / (rewards.std() + 1e-6), 0.0
        for record, advantage in zip(records, advantages, strict=True):
            for now, then in log_probs(fleet.output.extras(record), texts[record["prompt"]]):
                furthest = max(furthest, difference := abs(float(now.detach() - then)))
                if not difference < 0.01:  # the weights are those that rendered: else the ratio means nothing
                    sys.exit(f"log-probabilities differ by {difference:.1e}: rendered in another way")
                ratio = (now - then).exp()
                gain = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
                (-gain / (STEPS * len(records))).backward()
        optimizer.step()
        optimizer.zero_grad()
        digest = fleet.update({"transformer": network.state_dict()})
        said = f"reward {rewards.mean():+.3f}, log-probabilities agree to {furthest:.1e}, model {digest[:8]}"
        print(f"round {number}: {said}", flush=True)
