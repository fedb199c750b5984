#!/usr/bin/env bash
# One command: make the environment if it is not there, run every notebook, print what was written.
#   bash run_all.sh [--profile smoke|quick|cpu|paper] [--only 10,30] [--set name=value] [--jobs N] [--data DIR] [--fresh] [--list]
#   bash run_all.sh --profile paper --rehearse    one step a training at the published size, and the plan of the whole (--plan, --gpu-tflops X)
#   bash run_all.sh --test [pytest arguments]     the same environment, then the tests
#   bash run_all.sh --doctor                      what this machine has and lacks
# Needs git and python3 >= 3.11; uses uv if it is on the PATH, else fetches the locked version into .venv-tools.
# KIT_EXTRA=cpu|gpu overrides the choice that is made from the presence of an NVIDIA driver.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=${KIT_VENV:-$root/.venv}

fail() { echo "run_all.sh: $*" >&2; exit 2; }

find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11 python; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
      command -v "$candidate"; return
    fi
  done
  fail "no Python 3.11 to 3.13 on the PATH; install one (for example: apt install python3, or conda env create -f environment.yml)."
}

# Debian's python3 comes without pip and venv: take uv's wheel from the address in uv.lock, check it, unpack the program
uv_from_lock() {
  "$python" - "$root/uv.lock" "$1" <<'PY'
import hashlib, io, pathlib, platform, sys, sysconfig, tomllib, urllib.request, zipfile
lock, target = sys.argv[1], pathlib.Path(sys.argv[2])
package = next(p for p in tomllib.load(open(lock, "rb"))["package"] if p["name"] == "uv")
system = {"linux": "musllinux" if "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or "") else "manylinux", "darwin": "macosx"}[sys.platform]
machine = {"AMD64": "x86_64"}.get(platform.machine(), platform.machine())
wheel = next(w for w in package["wheels"] if system in w["url"] and machine in w["url"].rsplit("/", 1)[1])
content = urllib.request.urlopen(wheel["url"], timeout=60).read()
if "sha256:" + hashlib.sha256(content).hexdigest() != wheel["hash"]:
    sys.exit("the wheel of uv does not have the checksum in uv.lock")
with zipfile.ZipFile(io.BytesIO(content)) as archive:
    program = next(n for n in archive.namelist() if n.endswith("/scripts/uv"))
    target.mkdir(parents=True, exist_ok=True)
    (target / "uv").write_bytes(archive.read(program))
(target / "uv").chmod(0o755)
PY
}

# uv in the version that uv.lock names: by pip where Python has it, else its wheel straight from the address and checksum in uv.lock
find_uv() {
  if command -v uv >/dev/null; then command -v uv; return; fi
  local tools=$root/.venv-tools version
  if [ ! -x "$tools/bin/uv" ]; then
    version=$("$python" -c 'import sys, tomllib; print(next(p["version"] for p in tomllib.load(open(sys.argv[1], "rb"))["package"] if p["name"] == "uv"))' "$root/uv.lock")
    echo "fetching uv $version into .venv-tools" >&2
    if ! { "$python" -m venv "$tools" && "$tools/bin/python" -m pip install -q --disable-pip-version-check "uv==$version"; } >/dev/null 2>&1; then
      rm -rf "$tools"
      uv_from_lock "$tools/bin" || fail "uv could not be fetched; without a network copy a finished .venv here (see README, offline machine)."
    fi
  fi
  echo "$tools/bin/uv"
}

make_environment() {
  local extra=${KIT_EXTRA:-cpu} stamp uv
  if [ -z "${KIT_EXTRA:-}" ] && command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then extra=gpu; fi
  stamp="$extra $(cksum <"$root/uv.lock") $(cksum <"$root/pyproject.toml")"
  if [ -x "$venv/bin/python" ] && [ "$(cat "$venv/.kit-stamp" 2>/dev/null)" = "$stamp" ]; then return; fi
  python=$(find_python)
  uv=$(find_uv)
  echo "making the environment in $venv ($extra, $("$python" --version), a few hundred MB to fetch)"
  rm -f "$venv/.kit-stamp"
  (cd "$root" && UV_PROJECT_ENVIRONMENT=$venv "$uv" sync --frozen --quiet --extra "$extra" --python "$python") \
    || fail "the environment could not be made; see the lines above, and README, offline machine."
  echo "$stamp" >"$venv/.kit-stamp"
}

[ -f "$root/uv.lock" ] || fail "uv.lock is missing; this is no complete checkout."
make_environment
case ${1:-} in
  --test) shift; cd "$root"; "$venv/bin/python" -c 'from kit import runner; runner.install_kernel()'; exec "$venv/bin/python" -m pytest "$@" ;;
  --doctor) shift; exec "$venv/bin/python" -m kit.doctor "$@" ;;
  *) exec "$venv/bin/python" -m kit.runner "$@" ;;
esac
