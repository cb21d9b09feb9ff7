# shellcheck shell=bash
# What the *-host scripts and the image scripts share. To be sourced, not run.

umask 022       # the caller's would end up in images, folders and daemons
export LC_ALL=C # some answers of the clients are read

CACHE=${COURIER_CACHE:-/var/cache/incus-courier}

# Instances that these scripts made carry this mark; they leave every other one alone.
MARK=user.incus-courier

say() { printf '%s\n' "$*"; }
note() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
  note "$*"
  exit 1
}

need_root() {
  [[ $EUID -eq 0 ]] || die "this needs root: sudo $0${*:+ $*}"
}

# The whole text of the comment at the top of the script is its help.
print_help() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; }

# One run at a time; a second one waits for the first and then finds everything in place.
take_lock() {
  mkdir -p "$CACHE"
  exec {LOCK_FD}>"$CACHE/$1.lock"
  flock -w 900 "$LOCK_FD" || die "another run has held $CACHE/$1.lock for 15 minutes: end it first"
}

# --- packages -------------------------------------------------------------------------------------

# shellcheck source=/dev/null
os_value() { (. /etc/os-release && printf '%s' "${!1-}"); }

# Package tools write hundreds of lines that matter only when they fail.
quietly() {
  local log=$CACHE/packages.log
  "$@" </dev/null >>"$log" 2>&1 || die "'$1' failed: $(tail -n 1 "$log") (all of it is in $log)"
}

# apt waits for another apt by itself when installing, but not when it updates its lists.
try_apt_update() {
  local try
  for try in 1 2 3 4 5; do
    chroot "$1" apt-get -q update && return
    sleep "$try"
  done
  return 1
}

# Both take the machine to work on first: `/`, or the folder of a debootstrapped one.
apt_update() { quietly try_apt_update "$1"; }
apt_install() {
  quietly env DEBIAN_FRONTEND=noninteractive chroot "$1" apt-get -q -y -o DPkg::Lock::Timeout=300 \
    install --no-install-recommends "${@:2}"
}

apt_has() { [[ $(apt-cache policy "$1" | awk '$1 == "Candidate:" { print $2 }') == [0-9]* ]]; }

# apt's own view of its sources: it reads sources.list and both formats of sources.list.d for us. It tells only of lists
# that it has fetched, and container images come without any.
apt_sources() {
  # shellcheck disable=SC2016  # the $(...) are apt's
  apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages'
}

# The mirror that this machine takes its Debian from.
debian_mirror() {
  local codename try uri
  codename=$(os_value VERSION_CODENAME)
  for try in 1 2; do
    uri=$(apt_sources | awk -v r="$codename" '$1 == r && $2 == "main" && !n++ { print $3 }')
    [[ -z $uri ]] || { printf '%s' "${uri%/}" && return; }
    ((try == 2)) || apt_update /
  done
  die "no source for '$codename main' in /etc/apt: add one first"
}

# Adds SUITE of this machine's own mirror to the machine at ROOT, whose apt then prefers its old suites.
add_suite() {
  local suite=$1 root=${2:-} keyring=/usr/share/keyrings/debian-archive-keyring.gpg mirror
  [[ -f $root$keyring ]] || die "$root$keyring is missing: install debian-archive-keyring"
  mirror=$(debian_mirror)
  cat >"$root/etc/apt/sources.list.d/$suite.sources" <<SOURCES
Types: deb
URIs: $mirror
Suites: $suite
Components: main
Signed-By: $keyring
SOURCES
}

# wget, which debootstrap fetches with, does not know apt's proxy, and neither does the apt of a new root.
use_apt_proxy() {
  local proxy=
  eval "$(apt-config shell proxy Acquire::http::Proxy)"
  [[ -z $proxy ]] || export http_proxy="$proxy"
}

run_debootstrap() {
  command -v debootstrap >/dev/null || apt_install / debootstrap
  use_apt_proxy
  quietly debootstrap "$@"
}

# An interrupted debootstrap leaves /proc and /sys mounted in its folder: nothing may be deleted through them.
remove_tree() {
  umount -q "$1"/{proc,sys} 2>/dev/null || true
  rm -rf --one-file-system "$1"
}

# --- ids -----------------------------------------------------------------------------------------

# need_one_range FILE: FILE is /etc/subuid or /etc/subgid. Incus maps every range that root has there to the ids from 0 on, and
# the kernel takes no map with two beginnings. The first range is the one that the instances' files are owned by.
need_one_range() {
  local file=$1 surplus number line
  [[ -e $file ]] || return 0
  surplus=$(awk -F : '{ sub(/#.*/, "") } tolower($1) == "root" && NF >= 3 && n++ { print NR ": " $0; exit }' "$file")
  [[ -n $surplus ]] || return 0
  number=${surplus%%: *} line=${surplus#*: }
  die "line $number of $file ($line) gives root a second range of ids, and Incus starts no new container then:" \
    "remove that line, restart Incus (without systemd: end incusd), and run this again"
}

# --- daemons --------------------------------------------------------------------------------------

# start_detached PIDFILE LOG COMMAND...: in a session of its own, without a descriptor of ours, so that it outlives
# whatever ran this script, holds none of its pipes open, and does not keep our lock.
start_detached() {
  # shellcheck disable=SC2016  # for the inner shell
  setsid nohup bash -c '
    echo "$$" >"$1"
    for fd in /proc/$$/fd/*; do
      fd=${fd##*/}
      ((fd < 3)) || eval "exec $fd>&-"
    done
    shift
    ulimit -n 1048576 2>/dev/null || true
    cd / # where this runs may go, and rsync, which the daemon starts, does not run in what is gone
    exec "$@"' detached "$1" "${@:3}" </dev/null >>"$2" 2>&1 &
}

# A process that has ended may stay in the process table for long: without systemd, whatever process 1 is may never look
# after it. It has no program any more, though.
gone() { ! readlink "/proc/$1/exe" >/dev/null; }

# The process that PIDFILE names, if it still is the PROGRAM that we started: numbers are used again, and
# on a machine whose /run is no tmpfs the file outlives a reboot.
recorded_pid() {
  local pidfile=$1 program=$2 pid
  pid=$(cat "$pidfile" 2>/dev/null) && [[ -n $pid && $(cat "/proc/$pid/comm" 2>/dev/null) == "$program" ]] &&
    ! gone "$pid" || return 1
  printf '%s' "$pid"
}

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < end)) || return 1
    sleep 0.1
  done
}

# end_process PID SECONDS: asks, waits, and only then insists.
end_process() {
  kill -TERM "$1" 2>/dev/null || return 0
  wait_for "$2" gone "$1" || kill -KILL "$1"
  wait_for 5 gone "$1"
}

# --- images ---------------------------------------------------------------------------------------
# An image script defines `fill_rootfs FOLDER`.

# image_file NAME: where that image belongs. The name changes with the script that makes it, so that an edited script
# makes a new image, and a fresh checkout of the same one does not.
image_file() { printf '%s/%s-%s-%s.tar.gz' "$CACHE" "$1" "$(uname -m)" "$(sha256sum <"$0" | cut -c 1-8)"; }

# The part of such a name that tells one build from another.
build_of() { basename "$1" .tar.gz; }

write_metadata() {
  cat >"$1" <<YAML
architecture: $(uname -m)
creation_date: $(date +%s)
properties:
  description: $2
  os: $3
  incus-courier-build: $4
YAML
}

# build_image FILE DESCRIPTION OS: one archive of metadata and files, which Incus and LXD both take.
build_image() {
  local file=$1 work
  work=$(mktemp -d "$CACHE/build.XXXXXX")
  # shellcheck disable=SC2064  # the name as it is now
  trap "remove_tree '$work/rootfs'; rm -rf '$work'" EXIT
  chmod 755 "$work"
  mkdir "$work/rootfs"
  fill_rootfs "$work/rootfs"
  write_metadata "$work/metadata.yaml" "$2" "$3" "$(build_of "$file")"
  tar -C "$work" --numeric-owner -cf - metadata.yaml rootfs | gzip -1 >"$file.part"
  rm -f "${file%-*}"-*.tar.gz # what an older script made
  mv "$file.part" "$file"
}

# --- what is inside -------------------------------------------------------------------------------
# These speak to the daemon through the function `ctl`, which each script defines: the quiet client with its environment.

answers() { ctl query /1.0 >/dev/null 2>&1; }

# A pool is made only where there is none, and the default profile gets a root disk only if it has none:
# whatever the machine's owner set up stays as it is.
ensure_storage() {
  local pool
  ! ctl profile device show default | grep '^ *path: /$' >/dev/null || return 0
  pool=$(ctl storage list -f csv | awk -F , 'NR == 1 { print $1 }')
  if [[ -z $pool ]]; then
    pool=default
    ctl storage create "$pool" dir
  fi
  ctl profile device add default root disk path=/ "pool=$pool"
}

# ensure_image ALIAS FILE: an older build of ours is replaced; instances made from it keep running.
ensure_image() {
  local have
  if have=$(ctl image get-property "$1" incus-courier-build 2>/dev/null); then
    [[ $have != "$(build_of "$2")" ]] || return 0
    ctl image delete "$1"
  fi
  ctl image import "$2" --alias "$1"
}

is_running() { [[ $(ctl list -f csv -c s "^$1\$") == RUNNING ]]; }

# What the client says goes to the user only if it matters: it also remarks that these containers have no network.
make_instance() {
  local said
  said=$(ctl init courier-tiny "$1" -c "$MARK=1" </dev/null 2>&1) || die "$1 cannot be made: $said"
}

# A daemon that has just started brings back by itself what ran before: it may be quicker than we are.
start_instance() {
  local said
  ! said=$(ctl start "$1" </dev/null 2>&1) || return 0
  if [[ $said == *'already running'* || $said == *'busy running'* ]] && wait_for 20 is_running "$1"; then return; fi
  die "$1 does not start: $said"
}

# ensure_instance NAME running|stopped
ensure_instance() {
  local name=$1 want=$2 row
  row=$(grep "^$name," <<<"$INSTANCES" || true)
  case $row,$want in
    ,running) make_instance "$name" && start_instance "$name" ;;
    ,stopped) make_instance "$name" ;;
    *,STOPPED,1,running) start_instance "$name" ;;
    *,1,*) ;;
    *) note "$name is an instance of yours: left as it is" ;;
  esac
}

# One listing for all: asking costs more than looking.
ensure_instances() {
  local pair
  INSTANCES=$(ctl list -f csv -c "ns,$MARK")
  for pair; do ensure_instance "${pair%=*}" "${pair#*=}"; done
}
