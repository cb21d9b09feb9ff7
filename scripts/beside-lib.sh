# shellcheck shell=bash
# What incus7-host and lxd5-host share: a Debian of its own in a folder, in which an Incus or LXD runs beside the Incus of this
# machine. Nothing of this machine is changed: not its packages, not its files outside the folder, not its network. To be
# sourced, after hosts-lib.sh, by a script that says which it is, before it calls `run_beside "$@"`:
#
#   WHAT                      the daemon and its version, for people
#   NAME                      the folder's name in the cache
#   SUITE                     the Debian that has it
#   install_packages FOLDER   puts the daemon and its client into the new machine there
#   DAEMON=(...)              starts the daemon, in the foreground
#   SHUTDOWN=(...)            ends it in good order, its containers first
#   CLIENT                    the command that speaks to it
#   STATE                     the directory where it keeps its socket, as seen inside

# The client of the same version; INSIDE runs it with nothing of the caller's environment.
ctl() {
  local limit=()
  [[ $1 != query ]] || limit=(timeout 5)
  "${limit[@]}" "${INSIDE[@]}" "$CLIENT" --quiet "$@"
}

# Made aside and moved, so that an interrupted run leaves no half machine in FOLDER.
install_machine() {
  local new=$FOLDER.part mirror
  mirror=$(debian_mirror)
  [[ -z $(ls -A "$FOLDER" 2>/dev/null) ]] || die "$FOLDER holds something else: name an empty folder"
  note "making a Debian ($SUITE) with $WHAT in $FOLDER"
  remove_tree "$new"
  mkdir -p "${new%/*}"
  run_debootstrap --variant=minbase --include=ca-certificates "$SUITE" "$new" "$mirror"
  printf '#!/bin/sh\nexit 101\n' >"$new/usr/sbin/policy-rc.d" # packages shall start nothing in here
  chmod 755 "$new/usr/sbin/policy-rc.d"
  install_packages "$new"
  rm -rf "$new"/var/cache/apt/archives/*.deb
  rmdir "$FOLDER" 2>/dev/null || true
  mv "$new" "$FOLDER"
}

# Runs as process 1 of namespaces of its own:
# - mounts: a chroot would not do, as the kernel gives no user namespace to a process in one; so the root is changed for good.
# - network: LXC talks to its containers over abstract sockets that are named after the container, and this machine's Incus
#   may have a c1, too. A socket with a path, like the daemon's own, is reached from outside all the same. Of its own it has a
#   loopback only.
# - processes: when this process ends, however it does, the kernel ends all that the daemon has started.
# The socket is root's alone: the groups in FOLDER have other numbers than this machine's.
# shellcheck disable=SC2016  # for the inner shell
INNER='
  set -eu
  cd "$1"
  mount --bind . .
  cd "$1"
  mount -t proc proc proc
  mount --rbind /sys sys
  mount --rbind /dev dev
  mount -t tmpfs tmpfs run
  pivot_root . mnt
  umount -l /mnt
  export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root INCUS_SECURITY_APPARMOR=false LXD_SECURITY_APPARMOR=false
  ip link set lo up
  shift
  "$@" &
  wait "$!"'

start_daemon() {
  note "starting $WHAT"
  mkdir -p "$FOLDER/var/log/${STATE##*/}"
  start_detached "$PIDFILE" "$LOG" \
    unshare --mount --net --pid --fork --kill-child bash -c "$INNER" "${0##*/}" "$FOLDER" "${DAEMON[@]}"
  wait_for 60 answers || die "$WHAT does not answer: see $LOG and the logs in $FOLDER/var/log"
}

# Its containers first, as a machine that is switched off in good order would; by force only if that does not work.
stop_daemon() {
  local pid
  pid=$(recorded_pid "$PIDFILE" unshare) || return 0
  timeout 60 "${INSIDE[@]}" "${SHUTDOWN[@]}" || true
  wait_for 10 gone "$pid" || kill -KILL "$pid"
  wait_for 10 gone "$pid"
}

ensure_daemon() {
  local pid
  ! answers || return 0
  if pid=$(recorded_pid "$PIDFILE" unshare); then
    note "its daemon runs (process $pid) but does not answer yet: waiting"
    ! wait_for 30 answers || return 0
    note "it does not answer: ending it"
    stop_daemon
  fi
  start_daemon
}

# The client lives in FOLDER, so the image has to be there for a moment.
import_tiny_image() {
  local file
  file=$("$HERE/tiny-image")
  cp "$file" "$FOLDER/tmp/"
  ensure_image courier-tiny "/tmp/${file##*/}"
  rm "$FOLDER/tmp/${file##*/}"
}

run_beside() {
  local action=start
  case ${1-} in
    --help | -h) print_help && exit ;;
    --stop) action=stop && shift ;;
    -*) die "unknown argument '$1': see $0 --help" ;;
  esac
  need_root "$@"
  FOLDER=$(realpath -m "${1:-$CACHE/$NAME}")
  INSIDE=(env -i "PATH=$PATH" HOME=/root chroot "$FOLDER")
  PIDFILE=$FOLDER/var/lib/$NAME-host.pid
  LOG=$FOLDER/var/log/$NAME-host.log
  take_lock "$NAME-host"
  if [[ $action == stop ]]; then stop_daemon && exit; fi
  [[ -x $FOLDER${DAEMON[0]} ]] || install_machine
  ensure_daemon
  ensure_storage
  import_tiny_image
  ensure_instances c1=running
  say "$WHAT ($(ctl version | awk '$1 == "Server" { print $3 }')) with c1 answers at"
  say "$FOLDER$STATE/unix.socket"
}
