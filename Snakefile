# Optional: the same jobs as run_all.sh on many machines, one papermill process a notebook, the summary last.
#   uvx snakemake --cores 4 --config profile=cpu
#   uvx --with snakemake-executor-plugin-slurm snakemake --executor slurm --jobs 8 --config profile=paper
# The environment has to be there (bash run_all.sh --doctor makes it) and the results folder has to be shared.
# Resources suit the paper profile; add --default-resources slurm_partition=... as the cluster needs.
from pathlib import Path

PROFILE = config.get("profile", "quick")
ROOT = Path(workflow.basedir)
PYTHON = ROOT / ".venv" / "bin" / "python"
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
TRAINING = [name for name in NOTEBOOKS if not name.startswith("90")]
STATUS = "results/" + PROFILE + "/notebooks/{notebook}.status.json"


rule all:
    input:
        expand(STATUS, notebook=NOTEBOOKS),


rule summary:
    input:
        expand(STATUS, notebook=TRAINING),
    output:
        expand(STATUS, notebook=[name for name in NOTEBOOKS if name.startswith("90")]),
    shell:
        "cd {ROOT} && {PYTHON} -m kit.runner --profile {PROFILE} --only 90"


rule notebook:
    output:
        STATUS,
    wildcard_constraints:
        notebook="|".join(TRAINING),
    threads: 8
    resources:
        mem_mb=32000,
        gpu=1,
        runtime=1440,
    shell:
        "cd {ROOT} && {PYTHON} -m kit.runner --profile {PROFILE} --only {wildcards.notebook}"
