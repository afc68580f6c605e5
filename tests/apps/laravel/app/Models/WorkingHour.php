<?php

namespace App\Models;

class WorkingHour extends CompanyRecord
{
}
