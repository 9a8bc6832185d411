# Sourced by the other scripts: makes .venv with what the given extra needs, once; a second call re-uses it.
# Usage: setup [extra]
as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

setup() {
  local extra="${1:-}" python="${PYTHON:-python3}" stamp wanted
  stamp=".venv/.installed${extra:+-$extra}"
  wanted="$(cat pyproject.toml constraints.txt scripts/setup.sh | sha256sum)"
  if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    return
  fi
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: Python 3.11 or newer is needed; set PYTHON to one" >&2
    exit 2
  }
  if ! .venv/bin/python -m pip --version > /dev/null 2>&1; then
    "$python" -m venv .venv || {
      echo "this Python lacks venv; installing Debian's package" >&2
      as_root apt-get update -qq && as_root apt-get install -y -qq python3-venv
      "$python" -m venv .venv
    }
  fi
  echo "installing into .venv (once) ..." >&2
  # torch first and pinned: otherwise a dependency may pull in another build of several gigabytes.
  .venv/bin/python -m pip install --quiet --disable-pip-version-check torch -c constraints.txt
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".${extra:+[$extra]}" -c constraints.txt
  if [ "$extra" = dev ]; then
    # An independent implementation that tests and benchmarks compare with. Its declared needs would bring torchvision,
    # which it never imports; what it does import is in the extra.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps torchattacks==3.5.1
  fi
  echo "$wanted" > "$stamp"
}
