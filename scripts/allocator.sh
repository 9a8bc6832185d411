# Sourced by scripts that run work: what they start uses the allocator tcmalloc where it is installed (Debian and Ubuntu:
# package libtcmalloc-minimal4, from Ubuntu 24.04 on libtcmalloc-minimal4t64). Does nothing, and says nothing, where it is
# not, where it cannot be loaded, and where LD_PRELOAD is set already: LD_PRELOAD= (empty) keeps the system's own.
if [ -z "${LD_PRELOAD+set}" ]; then
  allocator="$(PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2> /dev/null | sed -n 's/^.*libtcmalloc_minimal\.so\.4 .*=> //p' || true)"
  allocator="${allocator%%$'\n'*}"
  # The linker goes on without a library that it cannot load, and says so.
  if [ -n "$allocator" ] && [ -z "$(LD_PRELOAD="$allocator" /bin/sh -c : 2>&1)" ]; then
    export LD_PRELOAD="$allocator"
  fi
  unset allocator
fi
