"""The stages and the command line. `import nucseg` offers the functions of the stages."""
