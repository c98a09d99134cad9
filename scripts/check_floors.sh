#!/usr/bin/env bash
# Tests the lowest versions that pyproject.toml declares: `bash scripts/check_floors.sh [FOLDER]`, once before a release
# or in a nightly job. Makes two virtual environments in FOLDER (a temporary one by default) with the lowest versions of
# all direct dependencies, and runs the tests of what depends on them most. `floor`: entities and scores equal to those of
# the gliner package, training, saving, files of earlier versions, adapters and tables. `floor-onnx`: ONNX, which needs a
# later torch. Downloads some 6 GB the first time. Python 3.11 unless PYTHON names another.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
folder=${1:-$work/venvs}
export OMP_NUM_THREADS=1

"${PYTHON:-python3}" -m venv "$work/uv"
"$work/uv/bin/pip" install --quiet uv
uv=$work/uv/bin/uv
peer=("gliner>=0.2.29" "sentencepiece>=0.2" "tqdm>=4.66")
tests=("hypothesis>=6.100" "pytest>=8" "pytest-timeout>=2.3" "seqeval>=1.2")

# environment NAME REQUIREMENT...: sets python
environment() {
    "$uv" venv --quiet --clear --python "${PYTHON:-3.11}" "$folder/$1"
    python=$folder/$1/bin/python
    "$uv" pip install --quiet --python "$python" --resolution lowest-direct "${@:2}" "${peer[@]}" "${tests[@]}"
    "$uv" pip freeze --python "$python" --exclude-editable
}

failed=0
# old packages warn about each other, so warnings are no errors here
# trained weights differ in the last digits between versions of torch
environment floor -e ".[demo,peft,datasets]"
"$python" -P -m pytest -q -W default -k "not test_a_checkpoint_is_resumed and not onnx" \
    tests/test_earlier_files.py \
    tests/checkpoints/test_parity_*.py \
    tests/checkpoints/test_gliner_checkpoints.py tests/checkpoints/test_checkpoint_files.py \
    tests/checkpoints/test_weight_files.py tests/checkpoints/test_token_classification.py \
    tests/modeling/backbones/test_weight_files.py tests/modeling/adapters/test_saved_adapters.py \
    tests/pipeline/gliner/test_component_training.py tests/pipeline/gliner/test_component_saving.py \
    tests/data/test_writers.py || failed=1

environment floor-onnx -e ".[demo,package,onnx]"
"$python" -P -m pytest -q -W default tests/onnx || failed=1
exit $failed
