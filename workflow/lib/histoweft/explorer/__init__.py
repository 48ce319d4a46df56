"""A page that shows the study's sections, opened from disk: data files and the page itself.

A browser lets a page opened from disk load scripts and images that lie beside it, but not fetch files. So each piece
of data is a small script that hands one JSON object to the page, loaded when it is first shown.
"""
