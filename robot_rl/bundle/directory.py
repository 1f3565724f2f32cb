"""A policy bundle on disk: published by one rename, trusted only after every hash is checked."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load

from robot_rl.bundle.manifest import Manifest, content_id
from robot_rl.errors import BundleError, RobotRLError
from robot_rl.specs import ArraySpec, RobotSpec

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
ATTESTATIONS = "attestations"
WEIGHTS = "weights.safetensors"
CONFIG = "config.yaml"


class PolicyBundle:
    """An immutable directory: `manifest.json`, ONNX graphs, `weights.safetensors`, `config.yaml`.

    `attestations/` inside it holds what was found out later (validation records, latency certificates). It is keyed by
    the bundle's id and is no part of it.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """Wrap a verified directory; use `open` or `publish`."""
        self.path = path
        self.manifest = manifest

    def __repr__(self) -> str:
        return f"PolicyBundle({self.manifest.family}, id={self.id}, path={self.path})"

    @property
    def id(self) -> str:
        """Content hash of the manifest, and through it of every file."""
        return self.manifest.id

    @classmethod
    def publish(cls, path: str | Path, manifest: Manifest, files: Mapping[str, bytes]) -> PolicyBundle:
        """Write a bundle so that it is either wholly there or not there at all.

        Args:
            path: Directory to create; it must not exist, bundles are never overwritten.
            manifest: Everything but `files` and `id`, which are filled in here.
            files: Contents by file name, without the manifest.

        Raises:
            BundleError: The directory exists, or a graph's file is not among `files`.
        """
        target = Path(path)
        refuse_existing(target)
        needed = {graph.file for graph in manifest.graphs.values()} | {WEIGHTS, CONFIG}
        if missing := sorted(needed - set(files)):
            raise BundleError(f"cannot publish {target}: {missing} not among the files given ({sorted(files)})")
        sealed = replace(manifest, files={name: _sha256(files[name]) for name in sorted(files)}).sealed()
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = target.parent / f".staging-{target.name}-{uuid.uuid4().hex[:8]}"
        staging.mkdir()
        try:
            for name, content in {**files, MANIFEST: _json_bytes(sealed.to_dict())}.items():
                _write_synced(staging / name, content)
            (staging / ATTESTATIONS).mkdir()
            _sync_directory(staging)
            os.rename(staging, target)
            _sync_directory(target.parent)
        except OSError as error:
            shutil.rmtree(staging, ignore_errors=True)
            raise BundleError(f"cannot publish {target}: {error}; nothing was left behind") from error
        return cls.open(target)

    @classmethod
    def open(cls, path: str | Path) -> PolicyBundle:
        """Verify a bundle and return it.

        Raises:
            BundleError: Unknown format, altered manifest, or a file that is missing, altered or not listed.
        """
        root = Path(path)
        try:
            data = json.loads((root / MANIFEST).read_bytes())
        except FileNotFoundError as error:
            raise BundleError(f"{root} is not a policy bundle: {MANIFEST} is missing; {_AGAIN}") from error
        except OSError as error:
            raise BundleError(f"{root / MANIFEST} cannot be read ({error}); {_AGAIN}") from error
        except ValueError as error:
            raise BundleError(f"{root / MANIFEST} is not JSON ({error}); {_AGAIN}") from error
        if not isinstance(data, dict):
            raise BundleError(f"{root / MANIFEST} must hold a JSON object, got {type(data).__name__}; {_AGAIN}")
        manifest = Manifest.from_dict(data)
        if manifest.id != (expected := content_id(data)):
            raise BundleError(f"{root / MANIFEST}: expected id {expected}, got {manifest.id}; it was altered, {_AGAIN}")
        _verify_files(root, manifest)
        return cls(root, manifest)

    def file(self, name: str) -> Path:
        """Return the path of a file that belongs to the bundle.

        Raises:
            BundleError: The manifest does not list it.
        """
        if name not in self.manifest.files:
            raise BundleError(f"bundle {self.id} has no file {name!r}; it has {sorted(self.manifest.files)}")
        return self.path / name

    def content(self, name: str) -> bytes:
        """Return a file's bytes, which are again those that the manifest lists.

        Raises:
            BundleError: The manifest does not list it, or it was altered since the bundle was opened.
        """
        path = self.file(name)
        return _verified(path, path.read_bytes(), self.manifest.files[name])

    def weights(self) -> dict[str, np.ndarray]:
        """Return the model's weights by parameter name.

        Raises:
            BundleError: They were altered since the bundle was opened.
        """
        return dict(load(self.content(WEIGHTS)))

    def check_fits(self, robot: RobotSpec) -> None:
        """Raise unless this robot gives every observation the policy reads and takes the action it gives.

        Names, shapes, dtypes, units, the action's kind, frame and gripper convention, and the control rate must agree.
        Bounds may differ: the safety filter enforces the robot's own.

        Raises:
            BundleError: Names each disagreement.
        """
        mine, faults = self.manifest.robot, []
        for name, spec in mine.obs.items():
            if name not in robot.obs:
                faults.append(f"observation `{name}`: expected {spec.describe()}, got none")
            elif _signature(spec) != _signature(robot.obs[name]):
                faults.append(f"observation `{name}`: expected {spec.describe()}, got {robot.obs[name].describe()}")
        if _signature(mine.action) != _signature(robot.action):
            faults.append(f"action: expected {_signature(mine.action)}, got {_signature(robot.action)}")
        if mine.control_hz != robot.control_hz:
            faults.append(f"control_hz: expected {mine.control_hz:g}, got {robot.control_hz:g}")
        if faults:
            raise BundleError(
                f"bundle {self.id} (robot `{mine.name}`) does not fit robot `{robot.name}`: {'; '.join(faults)}; "
                "use a bundle trained for this robot, or mend the robot's spec"
            )

    def attest(self, kind: str, record: Mapping[str, Any]) -> Path:
        """Add a finding about this bundle (`validation`, `latency`), stamped with its id, and return its file."""
        folder = self.path / ATTESTATIONS
        folder.mkdir(exist_ok=True)
        path = folder / f"{kind}-{uuid.uuid4().hex[:12]}.json"
        staged = path.with_suffix(".tmp")
        _write_synced(staged, _json_bytes({**record, "kind": kind, "bundle_id": self.id}))
        os.rename(staged, path)
        return path

    def attestations(self, kind: str) -> list[dict[str, Any]]:
        """Return the findings of one kind that carry this bundle's id; others prove nothing and are left out.

        Raises:
            BundleError: A file is damaged.
        """
        records = []
        for path in sorted((self.path / ATTESTATIONS).glob(f"{kind}-*.json")):
            try:
                record = json.loads(path.read_bytes())
                of = record["bundle_id"]
            except (ValueError, KeyError, TypeError, OSError) as error:
                raise BundleError(
                    f"{path} is not a finding about a bundle ({error!r}); delete or restore it"
                ) from error
            if of == self.id:
                records.append(record)
            else:
                log.warning("%s speaks of bundle %s, not of %s; ignored", path, of, self.id)
        return records


def refuse_existing(path: str | Path) -> None:
    """Raise if something is at `path`; for those who work long before they publish.

    Raises:
        BundleError: It exists.
    """
    if Path(path).exists():
        raise BundleError(f"{path} exists already; a bundle is immutable, publish under another name")


def newest_accepted(
    directory: str | Path, *, robot: RobotSpec | None = None, accept: Callable[[PolicyBundle], None] | None = None
) -> PolicyBundle | None:
    """Return the newest bundle in a folder that verifies, fits the robot and passes `accept`, or `None`.

    A bundle that is refused is logged with the reason and the next older one is tried, so that a bad publication
    never takes the robot down.

    Args:
        directory: Folder whose subfolders are bundles.
        robot: The robot the bundle must fit.
        accept: Raises `BundleError` to refuse, for example `robot_rl.deploy.onnx_policy.smoke_run`.
    """
    found: list[PolicyBundle] = []
    for manifest in Path(directory).glob(f"[!.]*/{MANIFEST}"):
        try:
            found.append(PolicyBundle.open(manifest.parent))
        except (RobotRLError, OSError) as error:
            log.warning("bundle refused: %s", error)
    for bundle in sorted(found, key=lambda b: (b.manifest.created, b.id), reverse=True):
        try:
            if robot is not None:
                bundle.check_fits(robot)
            if accept is not None:
                accept(bundle)
        except (RobotRLError, OSError) as error:
            log.warning("bundle refused: %s", error)
        else:
            return bundle
    return None


_AGAIN = "copy or export the bundle again"


def _verify_files(root: Path, manifest: Manifest) -> None:
    """Raise unless the directory holds exactly the files the manifest lists, unaltered."""
    present = {p.relative_to(root).as_posix() for p in root.rglob("*") if not p.is_dir()}
    present = {name for name in present if name != MANIFEST and not name.startswith(f"{ATTESTATIONS}/")}
    needed = {graph.file for graph in manifest.graphs.values()} | {WEIGHTS, CONFIG} | set(manifest.files)
    for name in sorted(needed):
        expected = manifest.files.get(name)
        if expected is None or name not in present:
            raise BundleError(f"{root / name}: expected sha256 {expected}, got no such file; {_AGAIN}")
        _verified(root / name, (root / name).read_bytes(), expected)
    if unlisted := sorted(present - needed):
        raise BundleError(f"{root} holds files its manifest does not list: {unlisted}; remove them or {_AGAIN}")


def _verified(path: Path, content: bytes, expected: str) -> bytes:
    """Return the content of a file if it is the one that is listed."""
    if (got := _sha256(content)) != expected:
        raise BundleError(f"{path}: expected sha256 {expected}, got {got}; it was altered, {_AGAIN}")
    return content


def _signature(spec: ArraySpec) -> dict[str, Any]:
    """Return what must agree between two specs: everything but the bounds."""
    return {key: value for key, value in spec.to_dict().items() if key not in ("low", "high")}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
