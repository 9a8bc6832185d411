"""The shell completes verbs, recipes and methods; neither needs torch."""

import os
import subprocess
import sys

CODE = """
import sys
from robust_nas.cli import main
try:
    main()
finally:
    assert "torch" not in sys.modules
"""


def completed(words):
    """Return what bash is given for the last of the words."""
    environment = {
        **os.environ,
        "_ROBUST_NAS_COMPLETE": "complete_bash",
        "COMP_WORDS": f"robust-nas {words}",
        "COMP_CWORD": str(len(words.split(" "))),
    }
    code = CODE.replace("import sys\n", "import sys\nsys.argv[0] = 'robust-nas'\n", 1)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert "Error" not in done.stderr, done.stderr
    return done.stdout.split()


def test_verbs_recipes_and_methods_are_completed_without_torch():
    assert "evaluate" in completed("eval")
    assert completed("run qui") == ["quickstart"]
    assert completed("export model --format h") == ["hub"]
    assert completed("search quickstart --strategy pc") == ["pc-darts"]
    assert completed("compress model --method cs") == ["cstar"]
    assert completed("defend model --with j") == ["jpeg"]
