# Completes ringyard's words in bash: source <(ringyard completions bash)
# Readline cuts words at "=" and ":", ringyard does not; so it is given the line as typed, and what the line has already
# is taken off its answers.
_ringyard() {
    local line=${COMP_LINE:0:COMP_POINT} words=() candidate
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    local head=${words[-1]%"$2"}
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        case $candidate in
        :paths) compopt -o default 2>/dev/null; return ;;
        *[=,.]) compopt -o nospace 2>/dev/null ;;
        esac
        COMPREPLY+=("${candidate#"$head"}")
    done < <("${1/#\~/$HOME}" complete-words "${words[@]:1}" 2>/dev/null)
}
complete -F _ringyard ringyard
