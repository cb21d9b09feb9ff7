"""What has a shell complete commands, options, tasks and instances: the scripts, by the shell that reads them. Pure.

Each asks the command itself, and takes a word for each line of its answer; it works as a file of the shell's own folder
of completions as well as by `source <(incus-courier completion SHELL)`.
"""

from typing import Final

_BASH: Final = r"""# bash completion for incus-courier
_incus_courier() {
    local line=${COMP_LINE:0:COMP_POINT} current IFS=$' \t\n'
    local -a words
    read -ra words <<<"$line"
    [[ $line != *[[:space:]] ]] || words+=("")
    current=${words[${#words[@]}-1]}
    IFS=$'\n'
    COMPREPLY=($(IFS=' '; COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) \
        _INCUS_COURIER_COMPLETE=complete_bash "$1" 2>/dev/null))
    # The shell replaces what is behind the last colon alone.
    if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*:}"}"}")
    fi
}
complete -o default -F _incus_courier incus-courier
"""

_ZSH: Final = r"""#compdef incus-courier
_incus_courier() {
    local -a found
    found=(${(f)"$(COMP_WORDS="${words[1,$CURRENT]}" COMP_CWORD=$((CURRENT - 1)) \
        _INCUS_COURIER_COMPLETE=complete_bash ${words[1]} 2>/dev/null)"})
    if (( ${#found} )); then
        compadd -a found
    else
        _files
    fi
}
if [[ ${funcstack[1]} == _incus-courier ]]; then
    _incus_courier "$@"
else
    compdef _incus_courier incus-courier
fi
"""

_FISH: Final = r"""# fish completion for incus-courier
function __incus_courier
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    env COMP_WORDS="$words $current" COMP_CWORD=(count $words) \
        _INCUS_COURIER_COMPLETE=complete_bash $words[1] 2>/dev/null
end
complete -c incus-courier -f -a '(__incus_courier)'
complete -c incus-courier -n '__fish_seen_subcommand_from push' -F
"""

SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
