#!/usr/bin/env bash
# Runs tests/lerobot against LeRobot in .venv-lerobot, which it makes first. Where Python 3.12 or the packages cannot be
# had it says so and succeeds: the rest of the project does not need LeRobot.
set -u
cd "$(dirname "$0")/.."
venv=.venv-lerobot
# A Python whose environment has ROS wheels hands these to its children, which would load its libraries.
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE LD_LIBRARY_PATH

python312() {
    for found in "${PYTHON312:-}" python3.12 "$HOME"/.pyenv/versions/3.12*/bin/python; do
        if [ -n "$found" ] && "$found" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null; then
            echo "$found"
            return
        fi
    done
}

skip() {
    echo "skipped: $1"
    exit 0
}

if [ ! -e "$venv/.ready" ]; then
    python=$(python312)
    [ -n "$python" ] || skip "no Python 3.12 found, which LeRobot 0.6 needs; install it, or name it: PYTHON312=<path> make test-lerobot"
    "$python" -m venv "$venv" || skip "$python cannot make a virtual environment"
    "$venv/bin/python" -m pip install --quiet 'lerobot[dataset,diffusion,evaluation,pusht,core-scripts]>=0.6.1,<0.7' \
        -e '.[train]' 'beartype>=0.19,<1' 'pytest>=8.3,<10' 'pytest-timeout>=2.3,<3' \
        || skip "lerobot could not be installed (see above)"
    "$venv/bin/python" -m pip install --quiet --no-deps -e integrations/lerobot_policy_robot_rl \
        || skip "the plugin could not be installed (see above)"
    touch "$venv/.ready"
fi
# LeRobot's libraries warn about themselves; ours are held to no warnings by `make test`.
exec env OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 MUJOCO_GL="${MUJOCO_GL:-egl}" \
    "$venv/bin/python" -m pytest -q -o filterwarnings=default -W ignore tests/lerobot "$@"
