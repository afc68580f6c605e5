<?php

namespace App\Models;

class ActivityLog extends CompanyRecord
{
}
