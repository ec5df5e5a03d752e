from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.errors import DataError, ModelError
from harness.policy import Policy, PromptBatch, completion_log_probs, load_policy, sample
from harness.policy.families import Plain
from harness.train.method import ImageFeatures

EXACT = {"rtol": 1e-5, "atol": 1e-5}
SIZES = ((112, 112), (84, 140), (56, 84))
LENGTHS = torch.tensor([[5, 1, 3], [2, 7, 0], [4, 4, 6]])
T = 8
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }}\n"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}<start_of_image>"
    "{% else %}{{ content['text'] }}{% endif %}{% endfor %}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LLAVA_TEMPLATE = (
    "{% for message in messages %}USER: {% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<image>\n{% else %}{{ content['text'] }}{% endif %}{% endfor %} "
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def gemma3(folder: Path, tools: Any, donor: Any) -> None:
    """Image tokens see one another both ways, and layers have windows: nothing like a family with an adapter."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3Processor
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    marks = ["<bos>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    tokenizer = tools.tokenizer_with(
        donor.tokenizer,
        marks,
        GEMMA_TEMPLATE,
        bos_token="<bos>",
        eos_token="<end_of_turn>",
        pad_token="<|endoftext|>",
        extra_special_tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
    )
    ids = dict(zip(marks, tokenizer.convert_tokens_to_ids(marks), strict=True))
    text = tools.TEXT | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    config = Gemma3Config(
        text_config=text | {"sliding_window": 16, "layer_types": ["sliding_attention"] * 2 + ["full_attention"]},
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
            "vision_use_head": False,
        },
        mm_tokens_per_image=4,
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
        image_token_index=ids["<image_soft_token>"],
    )
    ends = {"eos_token_id": ids["<end_of_turn>"], "pad_token_id": tokenizer.pad_token_id}
    tools.random_model(config, Gemma3ForConditionalGeneration, **ends, repetition_penalty=1.3).save_pretrained(folder)
    images = Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    Gemma3Processor(images, tokenizer, chat_template=GEMMA_TEMPLATE, image_seq_length=4).save_pretrained(folder)


def llava(folder: Path, tools: Any, donor: Any) -> None:
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    roles = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    tokenizer = tools.tokenizer_with(donor.tokenizer, ["<image>"], LLAVA_TEMPLATE, **roles)
    config = LlavaConfig(
        text_config=tools.TEXT | {"model_type": "mistral", "vocab_size": len(tokenizer)},
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
            "projection_dim": 32,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    tools.random_model(config, LlavaForConditionalGeneration, **ends).save_pretrained(folder)
    images = LlavaImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )
    processor.save_pretrained(folder)


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory, policy: Policy, small: Any) -> Any:
    """A folder of a model without an adapter."""
    makers, folders = {"gemma3": gemma3, "llava": llava}, {}

    def find(family: str) -> Path:
        if family not in folders:
            folders[family] = tmp_path_factory.mktemp(family)
            makers[family](folders[family], small, policy)
        return folders[family]

    return find


@pytest.fixture(scope="module", params=["gemma3", "llava"])
def plain(request: pytest.FixtureRequest, plain_folder: Any) -> Policy:
    """A model without an adapter, shared: tests leave its weights as they are."""
    with pytest.warns(UserWarning, match=f"'{request.param}' have no adapter here and take the plain path"):
        return load_policy(str(plain_folder(request.param)))


@pytest.fixture
def both_ways(policy: Policy) -> tuple[Policy, Policy]:
    """One Qwen2-VL with its adapter, and without."""
    from transformers import Qwen2VLProcessor
    from transformers.processing_utils import ProcessorMixin

    class WithoutVideos(Qwen2VLProcessor):
        """Its own video processor needs torchvision."""

        def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
            self.image_token = "<|image_pad|>"
            self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            self.video_token = "<|video_pad|>"
            self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    processor = WithoutVideos(policy.image_processor, policy.tokenizer, policy.tokenizer.chat_template)
    other = Policy(policy.model, policy.tokenizer, policy.image_processor)
    other.family = Plain(policy.model, processor)
    return policy, other


def encoded(policy: Policy, prompts: Any) -> tuple[PromptBatch, Tensor]:
    batch = policy.batch(prompts)
    with torch.no_grad():
        return batch, policy.encode_images(batch)


def uniforms(group_size: int = 3, length: int = T) -> Tensor:
    return torch.rand((3, group_size, length), generator=torch.Generator().manual_seed(0))


def completions(policy: Policy) -> Tensor:
    ids = torch.randint(0, 250, (*LENGTHS.shape, int(LENGTHS.max())), generator=torch.Generator().manual_seed(1))
    return torch.where(torch.arange(ids.shape[2]) < LENGTHS[..., None], ids, policy.pad_token_id)


def own_logits(policy: Policy, prompt: Any, ids: Tensor) -> Tensor:
    """Logits [C, V] of a completion's tokens by the model's own forward, one sequence at a time."""
    inputs = dict(prompt.inputs)
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        if name in inputs:
            tail = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}.get(name, torch.zeros_like(ids))
            inputs[name] = torch.cat([inputs[name], tail[None]], dim=1)
    logits = policy.model(**inputs).logits[0, len(prompt.ids) - 1 : -1]
    return logits.index_fill(1, torch.tensor(policy.family.vision_token_ids), -torch.inf)


def test_log_probs_and_gradients_equal_the_models_own_forward(plain: Policy, make_prompts: Any) -> None:
    prompts = make_prompts(plain, SIZES)
    ids = completions(plain)
    weights = torch.randn(ids.shape, generator=torch.Generator().manual_seed(2))
    plain.model.zero_grad()
    ours = completion_log_probs(plain, *encoded(plain, prompts), ids, LENGTHS)
    (ours * weights).sum().backward()
    got = {name: parameter.grad for name, parameter in plain.model.named_parameters()}
    plain.model.zero_grad()
    for row, prompt in enumerate(prompts):
        for member, length in enumerate(LENGTHS[row].tolist()):
            own = ids[row, member, :length]
            theirs = own_logits(plain, prompt, own).log_softmax(-1).gather(1, own[:, None])[:, 0]
            torch.testing.assert_close(ours[row, member, :length], theirs, **EXACT)
            assert not ours[row, member, length:].any()
            (theirs * weights[row, member, :length]).sum().backward()
    wanted = {name: parameter.grad for name, parameter in plain.model.named_parameters()}
    plain.model.zero_grad()
    whole = torch.stack([gradient.norm() for gradient in wanted.values() if gradient is not None]).norm()
    assert sum("vision_tower" in name for name, gradient in wanted.items() if gradient is not None) > 10
    for name, gradient in wanted.items():
        assert (gradient is None) == (got[name] is None), name
        if gradient is not None:
            assert (got[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-7 * whole, name


def test_greedy_equals_generate(plain: Policy, make_prompts: Any) -> None:
    prompts = make_prompts(plain, SIZES)
    ours = sample(plain, *encoded(plain, prompts), max_new_tokens=T)
    before = plain.model.generation_config.to_dict()
    for row, prompt in enumerate(prompts):
        theirs = plain.model.generate(
            **prompt.inputs,
            do_sample=False,
            max_new_tokens=T,
            repetition_penalty=1.0,
            suppress_tokens=list(plain.family.vision_token_ids),
        )
        assert ours.ids[row, 0, : ours.lengths[row, 0]].tolist() == theirs[0, len(prompt.ids) :].tolist()
    assert plain.model.generation_config.to_dict() == before


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_every_token_is_where_its_own_uniform_falls(plain: Policy, make_prompts: Any, temperature: float) -> None:
    prompts = make_prompts(plain, SIZES)
    batch, features = encoded(plain, prompts)
    draws = uniforms()
    drawn = sample(plain, batch, features, max_new_tokens=T, uniforms=draws, temperature=temperature)
    with torch.no_grad():
        again = completion_log_probs(plain, batch, features, drawn.ids, drawn.lengths, temperature=temperature)
        torch.testing.assert_close(drawn.log_probs, again, **EXACT)
        for row, prompt in enumerate(prompts):
            for member, length in enumerate(drawn.lengths[row].tolist()):
                ids = drawn.ids[row, member, :length]
                upper = (own_logits(plain, prompt, ids).double() / temperature).softmax(-1).cumsum(-1)
                lower = torch.cat([torch.zeros(length, 1), upper[:, :-1]], dim=1)
                uniform = draws[row, member, :length].double()
                assert (lower.gather(1, ids[:, None])[:, 0] <= uniform + 1e-5).all()
                assert (uniform - 1e-5 <= upper.gather(1, ids[:, None])[:, 0]).all()


def test_the_plain_path_is_the_adapters(both_ways: tuple[Policy, Policy], make_prompts: Any, sizes: Any) -> None:
    adapted, plain = both_ways
    prompts, bare = make_prompts(adapted, sizes), make_prompts(plain, sizes)
    for one, other in zip(prompts, bare, strict=True):
        assert torch.equal(one.ids, other.ids) and torch.equal(one.pixels, other.inputs["pixel_values"])
    ids = completions(adapted)
    with torch.no_grad():
        ours, theirs = (
            completion_log_probs(each, *encoded(each, asked), ids, LENGTHS, temperature=0.7, with_entropy=True)
            for each, asked in ((adapted, prompts), (plain, bare))
        )
    torch.testing.assert_close(ours, theirs, **EXACT)
    for draws in (uniforms(8, 20), None):
        one = sample(adapted, *encoded(adapted, prompts), max_new_tokens=20, uniforms=draws, temperature=0.9)
        other = sample(plain, *encoded(plain, bare), max_new_tokens=20, uniforms=draws, temperature=0.9)
        assert one.finished.any()
        # A uniform number within a rounding of a boundary between two tokens may fall to either side of it, and what
        # follows then differs; of 24 completions at most one is allowed to.
        longest = min(one.ids.shape[2], other.ids.shape[2])
        same = (one.ids[..., :longest] == other.ids[..., :longest]).all(dim=2) & (one.lengths == other.lengths)
        assert int((~same).sum()) <= (0 if draws is None else 1)
        assert torch.equal(one.finished[same], other.finished[same])
        torch.testing.assert_close(one.log_probs[..., :longest][same], other.log_probs[..., :longest][same], **EXACT)


def test_checkpointing_changes_no_gradient_and_keeps_less(plain: Policy, make_prompts: Any) -> None:
    batch, features = encoded(plain, make_prompts(plain))
    ids = completions(plain)

    def gradient_and_kept(checkpointing: bool) -> tuple[Tensor, int]:
        kept = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        plain.family.checkpointing = checkpointing
        plain.model.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = completion_log_probs(plain, batch, features, ids, LENGTHS).sum()
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in plain.model.parameters() if p.grad is not None])
        plain.model.zero_grad()
        plain.family.checkpointing = False
        return gradient, kept

    gradient, all_kept = gradient_and_kept(False)
    again, less_kept = gradient_and_kept(True)
    torch.testing.assert_close(again, gradient, **EXACT)
    assert less_kept < 0.7 * all_kept
    assert not any(module.training for module in plain.model.modules())


def test_selected_prompts_keep_their_inputs_and_have_no_features(plain: Policy, make_prompts: Any) -> None:
    batch, features = encoded(plain, make_prompts(plain, SIZES))
    assert features.shape == (0, 1) and plain.num_image_tokens(batch) == [0, 0, 0]
    assert not ImageFeatures(features).leaf.requires_grad
    chosen = batch.select([2, 0])
    ids, lengths = completions(plain), LENGTHS
    with torch.no_grad():
        whole = completion_log_probs(plain, batch, features, ids, lengths)
        some = completion_log_probs(plain, chosen, features, ids[[2, 0]], lengths[[2, 0]])
    torch.testing.assert_close(some, whole[[2, 0]], **EXACT)


def test_what_is_saved_loads_in_transformers_and_here(plain: Policy, make_prompts: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    plain.save(tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    AutoProcessor.from_pretrained(tmp_path)
    prompt = make_prompts(plain)[0]
    with torch.no_grad():
        assert torch.equal(model(**prompt.inputs).logits, plain.model(**prompt.inputs).logits)
    with pytest.warns(UserWarning, match="plain path"):
        again = load_policy(str(tmp_path))
    same = make_prompts(again)[0]
    assert all(torch.equal(value, same.inputs[name]) for name, value in prompt.inputs.items())


def test_bf16_weights_are_near_float32(plain: Policy, make_prompts: Any, tmp_path: Path) -> None:
    plain.save(tmp_path)
    with pytest.warns(UserWarning, match="plain path"):
        coarse = load_policy(str(tmp_path), precision="bf16")
    prompts, ids = make_prompts(plain, SIZES), completions(plain)
    with torch.no_grad():
        exact = completion_log_probs(plain, *encoded(plain, prompts), ids, LENGTHS)
        near = completion_log_probs(coarse, *encoded(coarse, prompts), ids, LENGTHS)
    assert near.dtype == torch.float32 and coarse.model.dtype == torch.bfloat16
    # bf16 keeps 8 bits: a relative error of 1/256 in each of some ten roundings on the way.
    assert (near - exact).abs().max() < 0.04 * exact.abs().max()
    drawn = sample(coarse, *encoded(coarse, prompts), max_new_tokens=T, uniforms=uniforms())
    assert drawn.log_probs.isfinite().all()


def test_a_question_with_an_images_placeholder_is_refused(plain: Policy, pictures: Any) -> None:
    placeholder = "<start_of_image>" if plain.model.config.model_type == "gemma3" else "<image>"
    with pytest.raises(DataError, match="processor refuses a question"):
        plain.prompt(pictures(((56, 56),))[0], f"{placeholder} How many?")


def test_a_model_that_changes_its_logits_behind_the_head_is_refused(plain: Policy) -> None:
    class Capped(type(plain.model)):  # type: ignore[misc]
        """As Gemma 2's and Cohere's models do."""

        def forward(self, **inputs: Any) -> Any:
            out = super().forward(**inputs)
            out.logits = 30 * (out.logits / 30).tanh()
            return out

    capped = Capped(plain.model.config)
    capped.load_state_dict(plain.model.state_dict())
    with pytest.raises(ModelError, match=r"change their logits behind the output head, .*; they need an adapter"):
        Plain(capped, None)
