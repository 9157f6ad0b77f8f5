from django.db import migrations, models


def forget_counts(apps, schema_editor):
    # Users' numbers are kept in another form now; counts are made from the runs, and will be again within the hour.
    apps.get_model("generation", "CountedRuns").objects.all().delete()


class Migration(migrations.Migration):
    dependencies = [("generation", "0007_counted_runs")]

    operations = [
        migrations.RunPython(forget_counts, migrations.RunPython.noop, elidable=True),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(fields=["-created_at", "-id"], name="run_newest"),
        ),
    ]
