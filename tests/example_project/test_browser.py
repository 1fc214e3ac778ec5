from __future__ import annotations

from example_project.demo.browser import forms_in

PAGE = """
<form><input name="q" value="search"></form>
<form method="post">
  <input type="hidden" name="csrfmiddlewaretoken" value="t0ken">
  <input name="name" value="&lt;Ada&gt;">
  <input type="checkbox" name="is_failing">
  <input type="checkbox" name="is_kind" checked>
  <select name="role"><option value="1">a</option><option value="2" selected>b</option></select>
  <select name="groups" multiple>
    <option value="1" selected>a</option><option value="2" selected>b</option>
  </select>
  <textarea name="note">two
lines</textarea>
  <input type="submit" name="_save" value="Save">
</form>
"""


def test_a_form_is_read_with_the_values_that_it_would_send() -> None:
    assert forms_in(PAGE)[1] == {
        "csrfmiddlewaretoken": "t0ken",
        "name": "<Ada>",
        "is_failing": None,
        "is_kind": "on",
        "role": "2",
        "groups": ["1", "2"],
        "note": "two\nlines",
    }
