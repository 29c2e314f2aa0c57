"""What the commands of `tetrad` do, one module each; `cli` parses their arguments."""
