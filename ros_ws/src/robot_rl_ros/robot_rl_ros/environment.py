"""What every process of the graph needs in its environment, wherever it is started from. Needs no ROS."""

from pathlib import Path

SHM_PROFILE = Path(__file__).parent / "shm_profile.xml"


def environment() -> dict[str, str]:
    """Return the variables that a launcher sets for every node.

    Fast DDS's own shared-memory segment (512 kB) is smaller than one camera frame and loses most of them; the profile's
    is 16 MB. Discovery stays on this machine. The allocator keeps freed frames instead of asking for new pages.
    """
    return {
        "FASTDDS_DEFAULT_PROFILES_FILE": str(SHM_PROFILE),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "MALLOC_MMAP_THRESHOLD_": "67108864",
        "MALLOC_TRIM_THRESHOLD_": "268435456",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "LP_NUM_THREADS": "1",
    }
