"""The command ``segments``: ``main`` and one module per noun, thin over the library.

Conventions, for whoever adds a command:

- One line in ``commands.COMMANDS`` and a module of the command's name, which is imported only when the command runs.
  Even then it imports what is heavy (Feast, pandas, scikit-learn) inside the function, so that its help is quick.
- The module has a function of the command's name, or, for a noun with several verbs, a ``typer.Typer`` called ``app``.
  The docstring is the help: a first line that is also the line in the table, then plain paragraphs without markup.
- Options that several commands have come from ``options``. Output goes through ``output``: what was asked for to
  stdout, progress and remarks to stderr, JSON with ``--format json``, colours and rules only in a terminal.
- What is wrong with the user's input or world is a ``SegmentsError``: raise it. ``main`` prints its message and hint
  and exits with 1. A result that is bad news is printed, then ``raise typer.Exit(1)``. Usage errors, which exit with
  2, are ``typer.BadParameter``.
"""
