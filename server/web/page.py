"""The search page at ``/``; everything it shows comes from the same API that programs use."""

from flask import Blueprint, render_template


def page_blueprint() -> Blueprint:
    """The page's one route. Its files are the application's static ones."""
    page = Blueprint("page", __name__)

    @page.get("/")
    def index() -> str:
        return render_template("page.html")

    return page
