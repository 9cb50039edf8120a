import pytest

from switchsafe import Recipe
from switchsafe.errors import RecipeError
from switchsafe.training.recipe import shipped


@pytest.mark.parametrize("name", list(shipped()))
def test_a_shipped_recipe_is_one_that_the_libraries_take(name, tmp_path):
    from peft import LoraConfig
    from trl import DPOConfig, SFTConfig

    recipe = Recipe.load(name)
    if recipe.lora is not None:
        LoraConfig(**recipe.lora)
    common = {"output_dir": str(tmp_path), "use_cpu": True}
    SFTConfig(**recipe.sft, **common)
    DPOConfig(**recipe.dpo, **common)
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_any_key_can_be_overridden(tmp_path):
    changes = {"sft.learning_rate": 1e-4, "limit": 50, "modes": ["pos", "rej"], "corpus.misplaced": 0, "lora": None}
    recipe = Recipe.load("starter", changes | {"sft.adam_beta2": None})
    assert recipe.sft["learning_rate"] == 1e-4
    assert "adam_beta2" not in recipe.sft
    assert (recipe.limit, recipe.modes, recipe.corpus["misplaced"], recipe.lora) == (50, ("pos", "rej"), 0, None)
    assert recipe.sft["num_train_epochs"] == Recipe.load("starter").sft["num_train_epochs"]
    assert Recipe.load("starter", {"lora": None, "lora.r": 8}).lora == {"r": 8}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learning_rate": 1}, "learning_rate, which nothing reads"),
        ({"optimizer.lr": 1}, "no section optimizer"),
        ({"corpus.share": 1}, "corpus has share"),
        ({"corpus.fallback": 2}, "a share from 0 to 1"),
        ({"corpus.general": "x.jsonl"}, "general and general_share go together"),
        ({"corpus.general_tag": "calm"}, "none of the modes"),
        ({"corpus.hold_out": ["rej"]}, "a mode and a policy"),
        ({"method": "magic"}, "it must be cotrain, sft or dpo"),
        ({"limit": 0}, "limit"),
        ({"dpo.beta": 0.1}, "method dpo only"),
        ({"method": "sft", "sam.every": 5}, "method cotrain only"),
        ({"adapter": "a", "lora": None}, "all weights"),
        ({"ema.decay": 1}, "between 0 and 1"),
        ({"sft.push_to_hub": True}, "use `switchsafe push`"),
        ({"sft.hub_token": "hf_x"}, "sft.hub_token would send"),
        ({"sft": 3}, "sft must be a mapping"),
    ],
)
def test_what_nothing_reads_or_cannot_go_together_is_told(change, said):
    with pytest.raises(RecipeError, match=said):
        Recipe.load("starter", change)
