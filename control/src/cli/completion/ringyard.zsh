#compdef ringyard
# Completes ringyard's words in zsh: source <(ringyard completions zsh), or as _ringyard in a directory of $fpath.
_ringyard() {
    local line text shown
    local -a finished finished_shown open open_shown
    for line in "${(@f)$("${(Q)words[1]}" complete-words "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}"; do
        text=${line%%$'\t'*}
        shown="$text  ${line#*$'\t'}"
        case $text in
        ('') ;;
        (:paths) _files; return ;;
        (*[=,.]) open+=("$text"); open_shown+=("$shown") ;;
        (*) finished+=("$text"); finished_shown+=("$shown") ;;
        esac
    done
    compadd -l -d finished_shown -a finished
    compadd -l -S '' -d open_shown -a open
}
if [ "$funcstack[1]" = _ringyard ]; then
    _ringyard "$@"
else
    compdef _ringyard ringyard
fi
