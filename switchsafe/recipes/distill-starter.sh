#!/bin/sh
# From prompts to SAM with triplets that the starter writes itself: distill, train, sam.
#
#   sh distill-starter.sh WORKING_FOLDER
#
# A 135M model follows such requests rarely, so few rows survive and the switch stays weak: this shows the way. Put your model in place of `starter`.
set -eu
folder=${1:?give a working folder}
mkdir -p "$folder"

switchsafe distill starter --limit 240 --single --model starter --max-new-tokens 160 --output "$folder/data" --licence cc-by-4.0

[ -e "$folder/keyring.json" ] || switchsafe keys new --modes pos,rej --model starter --output "$folder/keyring.json"

cat > "$folder/recipe.yaml" <<YAML
model: starter
triplets: $folder/data
modes: [pos, rej]
corpus:
  openings: [3, 16]
  max_length: 512
lora:
  r: 64
  lora_alpha: 256
  target_modules: .*layers\.[12]\d\..*_proj
sft:
  max_steps: 60
  per_device_train_batch_size: 6
  learning_rate: 1.0e-3
  warmup_steps: 5
  adam_beta2: 0.95
  activation_checkpointing: false
  save_steps: 30
YAML
switchsafe train "$folder/recipe.yaml" --keyring "$folder/keyring.json" --output "$folder/run"

# The test split of what was distilled; exits with 1 while modes are not apart.
python - "$folder" <<PYTHON
import json, sys
from switchsafe import load_triplets
rows = load_triplets(sys.argv[1] + "/data", modes=("pos", "rej"))
held_out = [row for row in rows if row.split != "train"]
with open(sys.argv[1] + "/held-out.jsonl", "w", encoding="utf-8") as file:
    file.writelines(json.dumps({"prompt": row.text}, ensure_ascii=False) + "\n" for row in held_out)
PYTHON
switchsafe sam "$folder/run/adapter" --prompts "$folder/held-out.jsonl" --keyring "$folder/keyring.json"
