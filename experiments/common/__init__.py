"""What a page's arms, claims, picture and answer share: names, and the numbers of theory.

A page has a module of its name here where that is more than a few lines.
"""
