"""`memoturn completions`: the script that lets a shell complete commands, options, databases and branches."""

from typing import Annotated

import typer

from memoturn.cli.run import current, single

_BASH = """\
# Put this into ~/.bashrc:  eval "$(memoturn completions bash)"
_memoturn_completion() {
    local IFS=$'\\n'
    COMPREPLY=( $( env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD \\
                   _MEMOTURN_COMPLETE=complete_bash $1 2>/dev/null ) )
    return 0
}
complete -o default -F _memoturn_completion memoturn
"""
_ZSH = """\
#compdef memoturn
# Put this into ~/.zshrc, behind compinit:  eval "$(memoturn completions zsh)"
_memoturn_completion() {
  eval $(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _MEMOTURN_COMPLETE=complete_zsh memoturn 2>/dev/null)
}
compdef _memoturn_completion memoturn
"""
_FISH = """\
# Put this into ~/.config/fish/completions/memoturn.fish
complete --command memoturn --no-files --arguments "(env _MEMOTURN_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS=(commandline -cp) memoturn)" --condition "env _MEMOTURN_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=is-args _TYPER_COMPLETE_ARGS=(commandline -cp) memoturn"
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def completions(
    ctx: typer.Context,
    shell: Annotated[
        str,
        typer.Argument(
            metavar="SHELL",
            help="bash, zsh or fish.",
            show_default=False,
            autocompletion=lambda: list(_SCRIPTS),
        ),
    ],
) -> None:
    """Print the completion script of a shell; its first line says where it goes. Names come from the node, within a second."""
    run = current(ctx)
    if shell not in _SCRIPTS:
        raise typer.BadParameter("takes bash, zsh or fish", param_hint="SHELL")
    run.out.done({"shell": shell, "script": _SCRIPTS[shell]}, _SCRIPTS[shell].rstrip("\n"))


app = single(
    completions,
    'eval "$(memoturn completions bash)"',
    "memoturn completions fish > ~/.config/fish/completions/memoturn.fish",
)
