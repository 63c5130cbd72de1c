# Completion of `sluice` for bash: commands and options are taken from its own --help, so they are never out of date.
# `meson install` puts it where bash looks; or: source deploy/completion/sluice.bash

_sluice()
{
    local word=${COMP_WORDS[COMP_CWORD]} program=${COMP_WORDS[0]} command=${COMP_WORDS[1]} words=
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        words=$("$program" --help 2>/dev/null | sed -n '/^Commands:/,/^$/s/^  \([a-z][a-z-]*\) .*/\1/p')
    elif [[ $word == -* ]]; then
        words=$("$program" "$command" --help 2>/dev/null | grep -oE '^ +(-[a-z], )? *--[a-z0-9-]+=?' | grep -oE '\-\-[a-z0-9-]+=?')
    else
        # For commands with actions (`sluice cache status`): the words of the usage line.
        if ((COMP_CWORD == 2)); then
            words=$("$program" "$command" --help 2>/dev/null | sed -nE '/^$/q; s/^((Usage|  or):)? +sluice [a-z-]+ (\[OPTION[^ ]*\] )?([a-z|]+).*/\4/p' | tr '|' ' ')
        fi
        [[ $words ]] || mapfile -t COMPREPLY < <(compgen -f -- "$word")
    fi
    local match
    for match in $(compgen -W "$words" -- "$word"); do
        COMPREPLY+=("$match")
        [[ $match == *= ]] && compopt -o nospace 2>/dev/null
    done
}

complete -o filenames -F _sluice sluice
