"""LeRobot as an oracle. Run by the interpreter of .venv-parity (tools/parity.sh), never by the tests' own:

    python oracle.py FOLDER '[["name", "kind", "size", {"option": ...}], ...]'

For each it builds a policy of that kind with random weights, writes FOLDER/name as LeRobot does, asks the
policy several things, and leaves there `answers.safetensors`: what each case was given, what each part on the
way said, and what came out. Sizes are "tiny" and "full"; options are the config's, and "cameras".
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

# torchvision is there for its plain operations; its compiled ones are not on a CPU build of torch.
for _name in ("nms", "qnms"):
    torch.library.define(
        f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    )

from safetensors.torch import save_file  # noqa: E402

WORDS = (
    "put the red cube in the blue bowl",
    "stack it",
    " ".join(["push the green ball to the left and then lift the yellow cylinder"] * 3),
)
FRAME = (60, 80)  # what the cameras give, height and width


def tokenizer(folder: Path, size: int, special: dict[str, str], bos: bool = False) -> Any:
    """A byte-level one, trained on WORDS."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<pad>", "<bos>", "<eos>", *special.values()],
        initial_alphabet=alphabet,
    )
    made.train_from_iterator([*WORDS, "Task: , State: 0 1 2 3 4 5 6 7 8 9;\nAction: "] * 4, trainer)
    if bos:
        made.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>",
        extra_special_tokens=special,
    )  # fmt: skip
    fast.save_pretrained(folder)
    return fast


def smolvlm(folder: Path, size: str) -> None:
    """A SmolVLM without weights, in the form of a hub folder."""
    from transformers import SmolVLMConfig

    folder.mkdir(parents=True, exist_ok=True)
    special = {
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "image_token": "<image>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    tokenizer(folder, 320, special)
    full = size == "full"
    text = {
        "model_type": "llama", "vocab_size": 49280 if full else 320, "hidden_size": 960 if full else 48,
        "intermediate_size": 2560 if full else 64, "num_hidden_layers": 32 if full else 4,
        "num_attention_heads": 15 if full else 6, "num_key_value_heads": 5 if full else 2,
        "head_dim": 64 if full else 8, "rms_norm_eps": 1e-5, "rope_theta": 100000.0, "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "hidden_size": 768 if full else 32, "intermediate_size": 3072 if full else 48,
        "num_hidden_layers": 12 if full else 2, "num_attention_heads": 12 if full else 2,
        "image_size": 512 if full else 64, "patch_size": 16 if full else 8,
    }  # fmt: skip
    config = SmolVLMConfig(
        text_config=text, vision_config=vision, scale_factor=4, image_token_id=5, pad_token_id=0
    )
    config.save_pretrained(folder)
    size_ = {"longest_edge": 64}
    processor = {
        "image_processor_type": "SmolVLMImageProcessor", "size": size_, "max_image_size": size_,
        "do_resize": True, "do_rescale": True, "do_normalize": True, "do_pad": True,
        "do_image_splitting": False,
        "video_sampling": {"fps": 1, "max_frames": 4, "video_size": size_},
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    video = {**processor, "video_processor_type": "SmolVLMVideoProcessor", "fps": 1, "num_frames": 4}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video))
    (folder / "processor_config.json").write_text(
        json.dumps({"image_seq_len": 4, "processor_class": "SmolVLMProcessor"})
    )


def features(cameras: int, state: int = 6, actions: int = 6) -> tuple[dict[str, Any], dict[str, Any]]:
    from lerobot.configs.types import FeatureType, PolicyFeature

    inputs = {"observation.state": PolicyFeature(FeatureType.STATE, (state,))}
    for i in range(cameras):
        inputs[f"observation.images.camera{i}"] = PolicyFeature(FeatureType.VISUAL, (3, *FRAME))
    return inputs, {"action": PolicyFeature(FeatureType.ACTION, (actions,))}


def statistics(rng: np.random.Generator, cameras: int, state: int = 6, actions: int = 6) -> dict[str, Any]:
    """Of a data set that was never recorded: the form is what matters."""
    out: dict[str, Any] = {}
    for name, width in (("observation.state", state), ("action", actions)):
        low, wide = rng.normal(size=width) - 1, rng.random(width) + 0.5
        out[name] = {
            "mean": low + wide / 2, "std": wide / 3, "min": low, "max": low + wide,
            "q01": low + wide * 0.02, "q99": low + wide * 0.97, "q10": low + wide * 0.1,
            "q90": low + wide * 0.9, "count": np.array([100]),
        }  # fmt: skip
    for i in range(cameras):
        mean, std = rng.random((3, 1, 1)), rng.random((3, 1, 1)) * 0.3 + 0.1
        out[f"observation.images.camera{i}"] = {
            "mean": mean,
            "std": std,
            "min": mean * 0,
            "max": mean * 0 + 1,
        }
    return out


def smolvla(size: str, folder: Path) -> tuple[Any, Any, Any]:
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
    from lerobot.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors

    cameras = CAMERAS[0]
    vlm = folder.parent / f"{folder.name}-vlm"
    smolvlm(vlm, size)
    inputs, outputs = features(cameras)
    small = {} if size == "full" else {
        "num_vlm_layers": 4, "chunk_size": 10, "n_action_steps": 10, "resize_imgs_with_padding": (64, 64),
    }  # fmt: skip
    config = SmolVLAConfig(
        input_features=inputs, output_features=outputs, vlm_model_name=str(vlm), load_vlm_weights=False,
        device="cpu", **{**small, **OPTIONS},
    )  # fmt: skip
    policy = SmolVLAPolicy(config)
    stats = statistics(np.random.default_rng(1), cameras)
    return policy, *make_smolvla_pre_post_processors(config, to_tensors(stats))


def act(size: str, folder: Path) -> tuple[Any, Any, Any]:
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.act.processor_act import make_act_pre_post_processors

    cameras = CAMERAS[0]
    inputs, outputs = features(cameras)
    small = {} if size == "full" else {
        "dim_model": 32, "n_heads": 4, "dim_feedforward": 48, "chunk_size": 10, "n_action_steps": 10,
        "n_encoder_layers": 2, "n_vae_encoder_layers": 1, "latent_dim": 8,
    }  # fmt: skip
    config = ACTConfig(
        input_features=inputs, output_features=outputs, device="cpu", pretrained_backbone_weights=None,
        **{**small, **OPTIONS},
    )  # fmt: skip
    policy = ACTPolicy(config)
    return policy, *make_act_pre_post_processors(
        config, to_tensors(statistics(np.random.default_rng(1), cameras))
    )


def pi(kind: str, size: str, folder: Path) -> tuple[Any, Any, Any]:
    """pi0 or pi0.5. LeRobot 0.4's want a patched transformers; gemmas.py is what they want of it."""
    import importlib

    import transformers.models.siglip as siglip
    from gemmas import gated, gemmas
    from lerobot.processor import tokenizer_processor
    from transformers.models.gemma import modeling_gemma

    siglip.check = type(
        "check", (), {"check_whether_transformers_replace_is_installed_correctly": lambda: True}
    )
    sys.modules["transformers.models.siglip.check"] = siglip.check
    modeling_gemma._gated_residual = gated
    modeling = importlib.import_module(f"lerobot.policies.{kind}.modeling_{kind}")
    configuration = importlib.import_module(f"lerobot.policies.{kind}.configuration_{kind}")
    processor = importlib.import_module(f"lerobot.policies.{kind}.processor_{kind}")
    name = kind.upper()
    if size != "full":
        small = {"gemma_2b": (48, 3, 64, 8, 1, 8), "gemma_300m": (32, 3, 40, 8, 1, 8)}
        modeling.get_gemma_config = lambda variant: modeling.GemmaConfig(*small[variant])
    modeling.PaliGemmaForConditionalGeneration, modeling.GemmaForCausalLM = gemmas(size)
    words = folder.parent / f"{folder.name}-words"
    words.mkdir(parents=True, exist_ok=True)
    tokenizer(words, 400, {}, bos=True)
    # The processor names google/paligemma-3b-pt-224; the folder stands for it.
    auto = tokenizer_processor.AutoTokenizer
    tokenizer_processor.AutoTokenizer = type(
        "Auto", (), {"from_pretrained": lambda *_, **__: auto.from_pretrained(words)}
    )
    RESTORE.append(lambda: setattr(tokenizer_processor, "AutoTokenizer", auto))
    inputs, outputs = features(CAMERAS[0])
    small_config = {} if size == "full" else {
        "chunk_size": 10, "n_action_steps": 10, "image_resolution": (32, 32),
    }  # fmt: skip
    config = getattr(configuration, f"{name}Config")(
        input_features=inputs, output_features=outputs, device="cpu", **{**small_config, **OPTIONS}
    )
    policy = getattr(modeling, f"{name}Policy")(config)
    make = getattr(processor, f"make_{kind}_pre_post_processors")
    return policy, *make(config, to_tensors(statistics(np.random.default_rng(1), CAMERAS[0])))


def to_tensors(stats: dict[str, Any]) -> dict[str, Any]:
    return {
        k: {n: torch.as_tensor(v, dtype=torch.float32) for n, v in each.items()} for k, each in stats.items()
    }


KINDS = {
    "smolvla": smolvla,
    "act": act,
    "pi0": lambda size, folder: pi("pi0", size, folder),
    "pi05": lambda size, folder: pi("pi05", size, folder),
}
CAMERAS = [2]
OPTIONS: dict[str, Any] = {}
RESTORE: list[Any] = []  # what undoes the patches of a kind


def shaken(policy: torch.nn.Module) -> None:
    """Random weights of which none is what it was initialised with: no zero bias, no gain of one."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in policy.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            parameter.add_((0.3 * parameter.std().nan_to_num(0.0) + 0.02) * noise.to(parameter.dtype))
        for name, buffer in policy.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(buffer + 0.2 * torch.rand(buffer.shape, generator=generator))


def cases(kind: str, cameras: int) -> list[dict[str, Any]]:
    """What is asked: every length of words, and, where the policy can do without a camera, one missing."""
    found = [{"words": i, "cameras": list(range(cameras))} for i in range(len(WORDS))]
    if kind != "act" and cameras > 1:
        found += [
            {"words": 0, "cameras": [i for i in range(cameras) if i != gone]} for gone in range(cameras)
        ]
    return found


def ask(
    kind: str, policy: Any, pre: Any, post: Any, case: dict[str, Any], seed: int
) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    observation: dict[str, Any] = {"observation.state": torch.from_numpy(rng.normal(size=6)).float()}
    given = {"state": observation["observation.state"]}
    for i in case["cameras"]:
        frame = rng.integers(0, 256, (*FRAME, 3), dtype=np.uint8)
        # Smooth ones, as of a camera: of pure noise resampling would leave nothing to compare.
        frame = np.repeat(np.repeat(frame[::10, ::10], 10, 0), 10, 1)
        given[f"camera{i}"] = torch.from_numpy(frame)
        observation[f"observation.images.camera{i}"] = torch.from_numpy(frame).permute(2, 0, 1).float() / 255
    batch = pre({**observation, "task": WORDS[case["words"]]})
    parts: dict[str, torch.Tensor] = {}
    rows = policy.config.chunk_size
    extra = {}
    if kind != "act":
        shape = (1, rows, policy.config.max_action_dim)
        # The noise of our sampler, seeded with the case's number (vla/flow.py).
        noise = np.random.default_rng([seed, 0]).standard_normal(shape)
        given["noise"] = torch.from_numpy(noise.astype(np.float32))
        extra["noise"] = given["noise"]
    with torch.inference_mode(), listening(kind, policy, parts):
        actions = post(policy.predict_action_chunk(batch, **extra))
    if kind != "act":
        given["ids"] = batch["observation.language.tokens"]
        given["mask"] = batch["observation.language.attention_mask"].long()
    given |= {f"part.{name}": value for name, value in parts.items()}
    return given | {"actions": actions}


class listening:
    """Notes the first output of each named part of a policy."""

    PARTS = {
        "smolvla": {
            "vision": "model.vlm_with_expert.vlm.model.vision_model",
            "connector": "model.vlm_with_expert.vlm.model.connector",
            "state": "model.state_proj",
            "suffix": "model.action_time_mlp_out",
            "expert_norm": "model.vlm_with_expert.lm_expert.norm",
            "velocity": "model.action_out_proj",
        },
        "pi0": {
            "vision": "model.paligemma_with_expert.paligemma.model.vision_tower",
            "projector": "model.paligemma_with_expert.paligemma.model.multi_modal_projector",
            "state": "model.state_proj",
            "suffix": "model.action_time_mlp_out",
            "velocity": "model.action_out_proj",
        },
        "pi05": {
            "vision": "model.paligemma_with_expert.paligemma.model.vision_tower",
            "projector": "model.paligemma_with_expert.paligemma.model.multi_modal_projector",
            "condition": "model.time_mlp_out",
            "suffix": "model.action_in_proj",
            "velocity": "model.action_out_proj",
        },
        "act": {
            "backbone": "model.backbone",
            "image": "model.encoder_img_feat_input_proj",
            "encoder": "model.encoder",
            "decoder": "model.decoder",
        },
    }

    def __init__(self, kind: str, policy: Any, parts: dict[str, torch.Tensor]) -> None:
        self.hooks, self.parts = [], parts
        for name, path in self.PARTS[kind].items():
            module = policy.get_submodule(path)
            self.hooks.append(module.register_forward_hook(self._note(name)))

    def _note(self, name: str) -> Any:
        def hook(module: Any, args: Any, out: Any) -> None:
            value = out if isinstance(out, torch.Tensor) else next(iter(out.values()))
            self.parts.setdefault(name, value.detach().clone().float())

        return hook

    def __enter__(self) -> None: ...

    def __exit__(self, *exc: object) -> None:
        for hook in self.hooks:
            hook.remove()


def main(folder: Path, jobs: list[Any]) -> None:
    from lerobot.configs.types import NormalizationMode

    for name, kind, size, options in jobs:
        options = dict(options)
        CAMERAS[0] = options.pop("cameras", 2)
        if "normalization_mapping" in options:
            modes = options["normalization_mapping"]
            options["normalization_mapping"] = {k: NormalizationMode(v) for k, v in modes.items()}
        OPTIONS.clear()
        OPTIONS.update(options)
        make(kind, size, folder / name)
        while RESTORE:
            RESTORE.pop()()


def make(kind: str, size: str, folder: Path) -> None:
    torch.manual_seed(0)
    policy, pre, post = KINDS[kind](size, folder)
    shaken(policy)
    policy.eval()
    policy.save_pretrained(folder)
    pre.save_pretrained(folder)
    post.save_pretrained(folder)
    asked = cases(kind, CAMERAS[0])
    answers = {}
    for i, case in enumerate(asked):
        given = ask(kind, policy, pre, post, case, i)
        answers |= {f"{i}.{k}": v.contiguous() for k, v in given.items()}
    save_file(answers, folder / "answers.safetensors")
    (folder / "cases.json").write_text(json.dumps([{**c, "text": WORDS[c["words"]]} for c in asked]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
