"""Checkers for the exercises of the book, a module a chapter: ``check_NAME(function)`` says what it finds."""
