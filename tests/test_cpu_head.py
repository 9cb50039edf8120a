"""TRL's own head is the oracle: what it says of a batch, and its gradients, computed at fewer positions."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Gemma2Config, GraniteConfig, LlamaConfig, MixtralConfig
from trl.trainer.utils import add_fused_lm_head

from switchsafe.training.cpu_head import score_labels_only

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "soft caps": Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=3.0),
    "scaled logits": GraniteConfig(**SIZES, logits_scaling=4.0),
    "experts": MixtralConfig(**SIZES, num_local_experts=4, output_router_logits=True),
}
FIELDS = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")


def two_models(config):
    """Equal models with LoRA, the first with TRL's head alone."""
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        add_fused_lm_head(model, outputs=FIELDS)
        models.append(get_peft_model(model, LoraConfig(target_modules="all-linear", init_lora_weights=False)))
    score_labels_only(models[1].get_base_model())
    return models


def batch():
    dice = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 97, (4, 20), generator=dice)
    labels = ids.clone()
    labels[0, :17] = -100
    labels[1, :5], labels[1, 12:] = -100, -100
    labels[2] = -100  # a row with nothing to learn
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def gradients(model):
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("name", CONFIGS)
def test_scores_and_gradients_are_those_of_trl(name):
    plain, spared = two_models(CONFIGS[name])
    expected, found = (model(**batch(), fused_lm_head=True) for model in (plain, spared))
    for field in FIELDS:
        torch.testing.assert_close(getattr(found, field), getattr(expected, field), rtol=1e-4, atol=1e-5)
    assert found.label_mask.equal(expected.label_mask)
    if name == "experts":
        torch.testing.assert_close(found.aux_loss, expected.aux_loss)
    for output in (expected, found):
        (output.log_probs * torch.arange(19)).sum().backward()
    assert gradients(plain)
    for weight, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(spared)[weight], gradient, rtol=1e-3, atol=1e-5)


def test_only_labelled_positions_reach_the_vocabulary():
    _, model = two_models(CONFIGS["llama"])
    seen = []
    model.get_base_model().lm_head.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape))
    model(**batch(), fused_lm_head=True)
    assert [shape[:2] for shape in seen] == [(1, 3 + 7 + 19)]


def test_a_batch_without_a_label_is_a_differentiable_zero():
    _, model = two_models(CONFIGS["llama"])
    rows = batch()
    none = model(**{**rows, "labels": torch.full_like(rows["labels"], -100)}, fused_lm_head=True).log_probs
    none.sum().backward()
    assert not none.any()
    assert all(not gradient.any() for gradient in gradients(model).values())


def test_other_calls_are_as_they_were():
    plain, spared = two_models(CONFIGS["llama"])
    rows = batch()
    expected, found = (model(**rows) for model in (plain, spared))
    assert found.loss.equal(expected.loss)
    assert found.logits.equal(expected.logits)
    assert found.logits.shape == (4, 20, 97)
    assert spared.generate(input_ids=rows["input_ids"], max_new_tokens=3).equal(
        plain.generate(input_ids=rows["input_ids"], max_new_tokens=3)
    )
