# Completes ringyard's words in fish: ringyard completions fish | source
function __ringyard_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    for line in (command $words[1] complete-words $words[2..-1] "$current" 2>/dev/null)
        if string match -q ":paths*" -- $line
            __fish_complete_path "$current"
        else
            echo $line
        end
    end
end
complete -c ringyard -f -a "(__ringyard_complete)"
