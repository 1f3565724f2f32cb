"""`python -m lerobot_policy_robot_rl BUNDLE FOLDER`: a folder that LeRobot takes as `--policy.path`."""

import argparse
from pathlib import Path

from lerobot_policy_robot_rl.pretrained import save_bundle


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    save_bundle(args.bundle, args.folder)


if __name__ == "__main__":
    main()
